/**
 * Draws a model's Markdown: parsed by marked, sanitised by DOMPurify, drawn block by block.
 *
 * Only this module turns text of a model or a user into HTML; everywhere else it is inserted as text. If the sanitiser
 * misses something, the page's policy (Content-Security-Policy, trusted types) still stops it.
 */

import DOMPurify from "../vendor/dompurify.js";
import { Marked, Tokenizer } from "../vendor/marked.js";
import { colour } from "./colours.js";
import { button, element } from "./dom.js";
import { ELEMENTS, isBlock, mayStartBlock, pairTags, written } from "./tags.js";
import { t } from "./words.js";
import { drawMaths, mathsExtensions, withoutOpenMaths } from "./maths.js";

const ALLOWED = {
  ALLOWED_TAGS: ELEMENTS,
  // No `style`, `id` or `name`; `class` only for the language of code. So a text cannot imitate a part of the page.
  ALLOWED_ATTR: ["href", "title", "start", "align", "class"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  ADD_URI_SAFE_ATTR: ["align", "start"], // not URLs, so not checked against the expression above
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
const LANGUAGE = /^language-([\w+#.-]{1,30})$/;
const COLOUR = /^hljs-[\w -]{1,60}$/; // the only classes allowed for a span: those of coloured code
const BLOCKS = "p, li, ul, ol, h3, h4, h5, h6, blockquote, th, td, dt, dd, summary, figcaption";

DOMPurify.addHook("uponSanitizeAttribute", (node, attribute) => {
  if (attribute.attrName !== "class") return;
  const allowed = { CODE: LANGUAGE, SPAN: COLOUR }[node.nodeName];
  attribute.keepAttr = allowed?.test(attribute.attrValue) ?? false;
});
DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

const marked = new Marked({
  gfm: true,
  renderer: {
    // Lower the level, because each message has a heading of its own.
    heading({ tokens, depth }) {
      const level = Math.min(6, depth + 2);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    // Load no images: another host would learn who reads the conversation.
    image({ href, title, text }) {
      return this.link({ href, title, tokens: [{ type: "text", raw: text, text: text || href }] });
    },
    html({ parts }) {
      return written(parts);
    },
    text(token) {
      token.escaped = false; // after a `<script>` or `<pre>`, marked would write text as HTML
      return false; // as usual
    },
    checkbox({ checked }) {
      return checked ? "☑ " : "☐ ";
    },
  },
});

marked.use({
  extensions: mathsExtensions,
  tokenizer: {
    // A block that starts with a forbidden tag becomes a paragraph, so that the Markdown in it is drawn.
    html(text) {
      if (!mayStartBlock(text)) return undefined;
      const token = Tokenizer.prototype.html.call(this, text);
      if (!token || isBlock(token.text)) return token;
      const inner = token.text.trim();
      return { type: "paragraph", raw: token.raw, text: inner, tokens: this.lexer.inline(inner) };
    },
    // Comments and the like are text. For each `<!--`, marked would search all of the rest for its end.
    tag: (text) => (/^<[!?]/.test(text) ? undefined : false),
  },
});

/** The tokens of a Markdown text. */
function lex(text) {
  const tokens = marked.lexer(text);
  pairTags(tokens);
  marked.walkTokens(tokens, (token) => {
    if (token.tokens) pairTags(token.tokens);
    if (token.type === "table") for (const cell of [token.header, ...token.rows].flat()) pairTags(cell.tokens);
  });
  return tokens;
}

/** Draws a Markdown text, which may still grow, in an element. */
export class Prose {
  #blocks = []; // the drawn blocks: {html, element}
  #text = "";
  #settled = { length: 0, blocks: 0 }; // length and number of blocks of the part that is final

  /** @param {HTMLElement} root only this object may change its children */
  constructor(root) {
    this.root = root;
  }

  /**
   * Show `text`. While it grows, only its last block is parsed again. Once it is `whole`, all of it is parsed again,
   * because the target of a link may come after the link. Unchanged blocks are not redrawn: a selection in them stays.
   */
  show(text, { whole }) {
    if (text.includes("\r")) text = text.replace(/\r\n?/g, "\n");
    const { length, blocks } = !whole && text.startsWith(this.#text.slice(0, this.#settled.length))
        ? this.#settled
        : { length: 0, blocks: 0 };
    let end = length;
    let count = blocks;
    const tokens = lex(text.slice(length));
    const last = tokens.findLast(({ type }) => type !== "space");
    for (const token of tokens) {
      if (token.type !== "space") {
        this.#settled = { length: end, blocks: count };
        const growing = token === last && !whole;
        const html = marked.parser(growing ? lex(mended(token.raw)) : [token]);
        if (html.trim() !== "") this.#draw(count++, html, { growing });
      }
      end += token.raw.length;
    }
    for (const { element } of this.#blocks.splice(count)) element.remove();
    // The tokens should contain every character of the text. If not, positions are wrong: parse it all the next time.
    if (end !== text.length) this.#settled = { length: 0, blocks: 0 };
    this.#text = text;
  }

  #draw(index, html, { growing }) {
    const block = (this.#blocks[index] ??= { html: "", growing: true, element: this.root.appendChild(element("div")) });
    if (block.html !== html) {
      block.html = html;
      block.growing = true;
      block.element.replaceChildren(DOMPurify.sanitize(html, ALLOWED));
      block.element.querySelectorAll("pre").forEach(frameCode);
      block.element.querySelectorAll("table").forEach(frameTable);
      // Set the text direction of each block by its first letter: an answer may mix Arabic and English.
      for (const one of block.element.querySelectorAll(BLOCKS)) one.dir = "auto";
    }
    if (block.growing && !growing) {
      block.growing = false;
      for (const code of block.element.querySelectorAll("pre > code")) colour(code, languageOf(code)).catch(() => {});
      drawMaths(block.element).catch(() => {}); // if the library cannot be loaded, the formulas stay as code
    }
  }
}

/**
 * Complete an unfinished block: close its open marks, which would be visible otherwise. Leave out parts that mean
 * something else until they are complete: a formula, the address of a link, the head of a table.
 */
function mended(raw) {
  if (/^(```|~~~)/.test(raw)) return raw;
  if (/^\|[^\n]*(\n[|: -]*)?$/.test(raw)) return "";
  const text = withoutOpenMaths(raw)
    .trimEnd()
    .replace(/!?\[([^\][\n]{0,500})(?:\]\([^)\s]{0,2000})?$/, "$1")
    .replace(/(^|\s)[*_`~]+$/, ""); // a mark without text after it
  const count = (mark) => (text.match(mark) ?? []).length;
  const isOpen = (mark) => count(mark) % 2 === 1;
  const emphasis = count(/(?<![\w*])\*(?=[^\s*])/g) > count(/(?<=[^\s*])\*(?![\w*])/g);
  return [
    text,
    isOpen(/`/g) ? "`" : "",
    emphasis ? "*" : "",
    isOpen(/\*\*(?=\S)|(?<=\S)\*\*/g) ? "**" : "",
    isOpen(/~~/g) ? "~~" : "",
  ].join("");
}

function languageOf(code) {
  return LANGUAGE.exec(code?.className ?? "")?.[1] ?? "text";
}

/** Add the language and a copy button to a code block. */
function frameCode(pre) {
  const language = languageOf(pre.firstElementChild);
  const copy = button({ className: "quiet-button", label: t("Copy the code"), name: "copy", text: t("Copy") });
  copy.onclick = () => copyText(pre.textContent, copy);
  const head = element("div", { className: "code-head" }, element("span", {}, language), copy);
  const frame = element("div", { className: "code", dir: "ltr" }, head);
  pre.replaceWith(frame);
  frame.append(pre);
  scrollable(pre, t("Code, {language}", { language }));
}

function frameTable(table) {
  const frame = element("div", { className: "scroll" });
  table.replaceWith(frame);
  frame.append(table);
  scrollable(frame, t("Table"));
}

/** Let the keyboard focus and scroll the element, which may be wider than the page. */
function scrollable(box, label) {
  box.tabIndex = 0;
  box.role = "group";
  box.ariaLabel = label;
}

/** Copy to the clipboard; the button shows whether that has worked. */
export async function copyText(text, pressed) {
  const label = pressed.lastChild;
  const before = label.data;
  try {
    await navigator.clipboard.writeText(text);
    label.data = t("Copied");
  } catch {
    label.data = t("Not allowed"); // browsers allow the clipboard only with TLS or on localhost
  }
  setTimeout(() => (label.data = before), 1500); // long enough to be read
}
