/**
 * Cuts a growing block of Markdown into a part that is done and the rest. Only the rest is parsed and drawn again with
 * each chunk, so a chunk costs the same in a long paragraph, list, table, quote or piece of code as in a short one. Not
 * cut are indented code, a long item with blocks in it, and a paragraph with tags or open marks all over.
 */

const LONGEST = 1_000; // characters of the rest; then it is cut again
export const RECENT = 300; // the last characters of a paragraph, which may still get another meaning
const REACH = 1_000; // characters after which a mark without its counterpart, such as `*`, counts as text
const MARK = /[~`[]|\*(?!\s)|(?<!\s)\*|(?<!\w)_|_(?!\w)|<(?=[a-z/!?])|\\[([]|\$\$/gi; // may be the beginning of something that is not complete yet
const SEAM = /(?<=[ \n。、，．！？])(?=\p{L})/gu; // where a word begins: the rest cannot be mistaken for another kind of block

/**
 * Where the inline `tokens` can be parted, at most `limit` characters after their beginning: before it nothing depends on
 * what follows. Returns the tokens before it and their number of characters, or null.
 */
export function part(tokens, limit) {
  let found = null;
  let at = 0; // characters before the token
  let mark = -REACH; // place of the last mark without its counterpart
  for (const [index, { type, raw, text }] of tokens.entries()) {
    if (at > limit) break;
    if (type === "html" && !/^<br\s*\/?>$/i.test(raw)) mark = at;
    if (type === "text" && raw === text) {
      const marks = Array.from(raw.matchAll(MARK), (match) => at + match.index);
      for (const { index: offset } of raw.matchAll(SEAM)) {
        while (marks.length && marks[0] < at + offset) mark = marks.shift();
        if (at + offset <= limit && at + offset - mark >= REACH) found = { index, offset, length: at + offset };
      }
      mark = marks.at(-1) ?? mark;
    }
    at += raw.length;
  }
  if (found === null) return null;
  const { index, offset, length } = found;
  const raw = tokens[index].raw.slice(0, offset);
  return { tokens: [...tokens.slice(0, index), { ...tokens[index], raw, text: raw }], length };
}

/** Whether an inline token is or has a tag that is drawn. A paragraph cannot be cut after one: `<div>` ends it. */
function hasTag({ type, parts, tokens = [] }) {
  if (type === "html") return parts.some(({ name, drawn }) => drawn && name !== "br");
  return tokens.some(hasTag);
}

const sum = (tokens) => tokens.reduce((length, { raw }) => length + raw.length, 0);

/** For each kind of block: `container`, the element that holds its parts; `html`, how its HTML is put together; `cut`. */
const KINDS = {
  paragraph: {
    container: "p",
    html: /^(<p>)([^]*)(<\/p>\n)$/,
    cut(token) {
      const tag = token.tokens.findIndex(hasTag);
      const safe = tag === -1 ? Infinity : sum(token.tokens.slice(0, tag));
      const limit = Math.min(safe, token.text.length - RECENT);
      const found = token.raw.startsWith(token.text) ? part(token.tokens, limit) : null;
      return found && { done: { ...token, tokens: found.tokens }, length: found.length };
    },
  },
  list: {
    container: "ol, ul",
    html: /^(<[ou]l[^>]*>\n)([^]*)(<\/[ou]l>\n)$/,
    cut(token) {
      const items = token.items.slice(0, -1);
      if (items.length === 0 || !/^ {0,3}(?:[*+-]|\d{1,9}[.)])[ \t]/.test(token.items.at(-1).raw)) return null;
      return { done: { ...token, items }, length: sum(items), loose: token.loose };
    },
  },
  table: {
    container: "tbody",
    html: /^([^]*?<tbody>)([^]*)(<\/tbody><\/table>\n)$/,
    cut(token) {
      const rows = token.rows.slice(0, -1);
      if (rows.length === 0) return null;
      const lines = token.raw.split("\n").map((line) => `${line}\n`);
      const head = lines.slice(0, 2).join("");
      return { done: { ...token, rows }, length: lines.slice(0, 2 + rows.length).join("").length, prefix: head };
    },
  },
  code: {
    container: "code",
    html: /^(<pre><code[^>]*>)([^]*)(<\/code><\/pre>\n)$/,
    cut(token) {
      const fence = /^(?:`{3,}|~{3,})[^\n]*\n/.exec(token.raw)?.[0]; // none: indented code
      const length = token.raw.lastIndexOf("\n", token.raw.length - 2) + 1;
      if (!fence || length <= fence.length) return null;
      return { done: { ...token, text: token.raw.slice(fence.length, length) }, length, prefix: fence };
    },
  },
  blockquote: {
    container: "blockquote",
    html: /^(<blockquote>\n)([^]*)(<\/blockquote>\n)$/,
    cut(token) {
      const last = token.tokens.findLastIndex(({ type }) => type !== "space");
      const tokens = token.tokens.slice(0, Math.max(0, last));
      const count = tokens.map(({ raw }) => raw).join("").split("\n").length - 1;
      const lines = token.raw.split("\n");
      if (count === 0 || !/^ {0,3}>/.test(lines[count] ?? "")) return null;
      return { done: { ...token, tokens }, length: lines.slice(0, count).join("\n").length + 1 };
    },
  },
};

/**
 * Cut a growing block, if it is long. Returns null or `done`, a token for the part that is done; its `length` in
 * characters; the `type`; what to parse before the rest (`prefix`); and whether a list is `loose`.
 */
export function cut(token) {
  if (token.raw.length <= LONGEST) return null;
  const found = KINDS[token.type]?.cut(token);
  return found ? { type: token.type, prefix: "", loose: false, ...found } : null;
}

/**
 * Whether `token`, parsed from the rest of a block that was cut, goes on with that block. It then becomes like it: the
 * items of a list with blank lines are paragraphs, also if there is no blank line in the rest.
 */
export function goesOn(token, { type, loose }) {
  if (token?.type !== type) return false;
  if (type !== "list" || token.loose === loose) return true;
  if (token.loose) return false; // so are the items before, then
  token.loose = true;
  for (const item of token.items) {
    item.loose = true;
    for (const one of item.tokens) if (one.type === "text") one.type = "paragraph";
  }
  return true;
}

/** The HTML of a block of this type: what is before its parts, the parts, and what is after them. */
export function split(html, type) {
  const [, before = "", parts = "", after = ""] = KINDS[type].html.exec(html) ?? [];
  return { before, parts, after };
}

/** The element in `root` that holds the parts of a block of this type. */
export function containerIn(root, type) {
  return root.querySelector(KINDS[type].container);
}
