/**
 * HTML in Markdown: which tags are drawn. All others, and comments, are shown as they were written: an answer about
 * HTML, or with `List<String>` or `<your-name>`, must lose no word.
 */

/** The elements that the prose of a model is made of. */
export const ELEMENTS = [
  ...["p", "br", "hr", "blockquote", "ul", "ol", "li", "pre", "code", "h3", "h4", "h5", "h6"],
  ...["a", "strong", "em", "b", "i", "del", "s", "sub", "sup", "kbd", "mark"],
  ...["table", "thead", "tbody", "tr", "th", "td"],
  ...["div", "section", "figure", "figcaption", "dl", "dt", "dd", "summary"], // without them, their texts would run together
];
const DRAWN = new Set([...ELEMENTS, "h1", "h2", "details"]); // drawn as `h3`; of `details` the content
const VOID = new Set(["br", "hr"]); // they have no end tag
// A tag whose attributes all have values: `<b and c>` is a comparison.
const TAG = /<(\/?)([a-z][a-z0-9]*)(?:\s+[a-z][\w:-]*\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'=<>`]+))*\s*\/?>/gi;
const START = /^ {0,3}<\/?([a-z][a-z0-9]*)[\s/>]/i;
const MAX_PRE = 20_000; // characters in which the end of a `<pre>` is looked for, so that many of them take linear time

/** The parts of a text with HTML: tags, which have a `name`, and between any two of them what is no tag. */
function split(text) {
  const parts = [];
  let end = 0;
  for (const { 0: raw, 1: slash, 2: name, index } of text.matchAll(TAG)) {
    parts.push({ raw: text.slice(end, index) }, { raw, name: name.toLowerCase(), closes: slash !== "", drawn: false });
    end = index + raw.length;
  }
  return [...parts, { raw: text.slice(end) }];
}

/**
 * Set the `parts` of each HTML token among `tokens`, which have the same parent. Only a start tag with its end tag is
 * drawn: so "Use <b> for bold" shows the tag, and nothing runs on into what follows.
 */
export function pairTags(tokens) {
  const html = tokens.filter(({ type }) => type === "html");
  for (const token of html) token.parts = split(token.text);
  const open = [];
  const counts = new Map(); // how many of each name are open
  for (const tag of html.flatMap(({ parts }) => parts)) {
    const count = counts.get(tag.name) ?? 0;
    if (!DRAWN.has(tag.name)) continue;
    if (VOID.has(tag.name)) tag.drawn = !tag.closes;
    else if (!tag.closes) {
      open.push(tag);
      counts.set(tag.name, count + 1);
    } else if (count > 0) {
      let start;
      do {
        start = open.pop();
        counts.set(start.name, counts.get(start.name) - 1);
      } while (start.name !== tag.name);
      start.drawn = tag.drawn = true;
    }
  }
}

/** Whether elements of this name are drawn. */
export function isDrawn(name) {
  return DRAWN.has(name);
}

/** Whether a Markdown text may start with a block of HTML that is drawn. */
export function mayStartBlock(text) {
  const name = START.exec(text)?.[1].toLowerCase();
  if (name !== "pre") return DRAWN.has(name);
  const beginning = text.slice(0, MAX_PRE);
  return beginning.includes("</pre>") || beginning.includes("</PRE>"); // much faster than a regular expression
}

/** Whether a block of HTML is one, and not a sentence that starts with a tag, such as "<li> is an item". */
export function isBlock(text) {
  const token = { type: "html", text };
  pairTags([token]);
  const [before, tag, after] = token.parts;
  return before.raw.trim() === "" && tag !== undefined && (tag.drawn || /^[ \t]*(?:\n|$)/.test(after.raw));
}

/** The HTML of an HTML token's parts. */
export function written(parts) {
  const write = ({ raw, name, drawn }) => {
    if (drawn) return raw.replace(/^(<\/?)h[12](?![0-9])/i, "$1h3"); // lower, as for headings
    return (name ? raw.replaceAll("&", "&amp;") : raw).replaceAll("<", "&lt;");
  };
  return parts.map(write).join("");
}
