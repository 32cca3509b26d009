/**
 * Draws a model's Markdown: parsed by marked, sanitised by DOMPurify, drawn block by block.
 *
 * Only this module turns text of a model or a user into HTML; everywhere else it is inserted as text. If the sanitiser
 * misses something, the page's policy (Content-Security-Policy, trusted types) still stops it.
 */

import DOMPurify from "../vendor/dompurify.js";
import { colour } from "./colours.js";
import { button, directionOf, element } from "./dom.js";
import { containerIn, cut, goesOn, split } from "./growing.js";
import { htmlOf, lex } from "./markdown.js";
import { drawMaths, withoutOpenMaths } from "./maths.js";
import { ELEMENTS } from "./tags.js";
import { t } from "./words.js";

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
const LINK = 2_600; // characters in which an unfinished link is looked for, somewhat more than its longest text and address
const MARKER = /^[ \t>]*(?:\d{1,9}[.)]?|[*+=-][*+= \t-]*)$/; // a line that may become an item of a list, and now is something else
const BLOCKS = "p, li, ul, ol, h3, h4, h5, h6, blockquote, .scroll, th, td, dt, dd, summary, figcaption";

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

/** Draws a Markdown text, which may still grow, in an element. */
export class Prose {
  #blocks = []; // the drawn blocks: {html, growing, element, done?: {type, before, parts, nodes}}
  #text = "";
  // The part that is final: its length and number of blocks. If it ends within a block: its cut `part` (see growing.js),
  // and where that block `begins`.
  #settled = { length: 0, blocks: 0, part: null, begins: 0 };

  #onlater;

  /** `root`: only this object may change its children. `onlater()` is called after maths was drawn in it. */
  constructor(root, onlater = () => {}) {
    this.root = root;
    this.#onlater = onlater;
  }

  /**
   * Show `text`. While it grows, only the end of its last block is parsed again. Once it is `whole`, all of it is parsed
   * again, because the target of a link may come after the link. Unchanged blocks are not redrawn: a selection in them stays.
   */
  show(text, { whole }) {
    if (text.includes("\r")) text = text.replace(/\r\n?/g, "\n");
    const line = text.lastIndexOf("\n") + 1;
    if (!whole && MARKER.test(text.slice(line))) text = text.slice(0, line);
    if (whole || !text.startsWith(this.#text.slice(0, this.#settled.length))) this.#settle(0, 0);
    let tokens = this.#rest(text);
    if (this.#settled.part && !goesOn(tokens[0], this.#settled.part)) {
      this.#settle(this.#settled.begins, this.#settled.blocks); // it is another kind of block
      tokens = this.#rest(text);
    }
    let { length: end, blocks: count, part } = this.#settled;
    end -= part?.prefix.length ?? 0;
    const last = tokens.findLast(({ type }) => type !== "space");
    for (const token of tokens) {
      if (token.type !== "space") {
        if (!part) this.#settle(end, count);
        const growing = token === last && !whole;
        const found = growing ? cut(token) : null;
        if (found && isOne(lex(found.prefix + token.raw.slice(found.length)), found)) {
          this.#draw(count, htmlOf([found.done]), { growing, part });
          this.#keep(count, found.type);
          this.#settled = { ...this.#settled, length: end + found.length, part: found };
          part = found;
        }
        const rest = part === found && found ? found.prefix + token.raw.slice(found.length) : token.raw;
        let drawn = growing ? lex(mended(rest, token)) : [token];
        if (part && growing && !isOne(drawn, part)) isOne((drawn = lex(rest)), part);
        const html = htmlOf(drawn);
        if (html.trim() !== "") this.#draw(count++, html, { growing, part });
        part = null;
      }
      end += token.raw.length;
    }
    for (const { element } of this.#blocks.splice(count)) element.remove();
    // The tokens should contain every character of the text. If not, positions are wrong: parse it all the next time.
    if (end !== text.length) this.#settle(0, 0);
    this.#text = text;
  }

  #settle(length, blocks) {
    this.#settled = { length, blocks, part: null, begins: length };
  }

  /** The tokens of what is not settled. */
  #rest(text) {
    const { length, part } = this.#settled;
    return lex((part?.prefix ?? "") + text.slice(length));
  }

  /** `part`: the HTML is only that of the rest of a block that was cut. */
  #draw(index, html, { growing, part }) {
    const block = (this.#blocks[index] ??= { html: "", growing: true, element: this.root.appendChild(element("div")) });
    const kept = block.done && block.done.before + block.done.parts;
    if (!part && !html.startsWith(kept)) block.done = null;
    const { done } = block;
    const { parts, after } = done && part ? split(html, done.type) : {};
    const all = done && part ? kept + parts + after : html;
    if (block.html !== all) {
      block.html = all;
      block.growing = true;
      if (done) {
        const container = containerIn(block.element, done.type);
        while (container.childNodes.length > done.nodes) container.lastChild.remove();
        const more = containerIn(draw(part ? html : done.before + html.slice(kept.length)), done.type);
        if (done.before.endsWith("\n")) more.firstChild.remove(); // the line's end before the parts is there already
        container.append(...more.childNodes);
        const directed = container.closest("[dir]"); // of a table: the box around it
        if (directed?.dir === "auto") directed.dir = directionOfBlock(directed);
      } else {
        block.element.replaceChildren(draw(html));
      }
    }
    if (block.growing && !growing) {
      block.growing = false;
      block.done = null; // the code's colours are other nodes
      for (const code of block.element.querySelectorAll("pre > code")) colour(code, languageOf(code)).catch(() => {});
      // They are higher than their code. If the library cannot be loaded, they stay as code.
      drawMaths(block.element).then((drawn) => drawn && this.#onlater(), () => {});
    }
  }

  /** What is drawn of this block stays as it is; the rest comes after it. */
  #keep(index, type) {
    const block = this.#blocks[index];
    const { before, parts } = split(block.html, type);
    block.done = { type, before, parts, nodes: containerIn(block.element, type).childNodes.length };
  }
}

/** Whether the tokens are one block, which goes on with the block that was cut. */
function isOne(tokens, part) {
  return goesOn(tokens[0], part) && tokens.slice(1).every(({ type }) => type === "space");
}

/** The elements of this HTML. */
function draw(html) {
  const drawn = DOMPurify.sanitize(html, ALLOWED);
  drawn.querySelectorAll("pre").forEach(frameCode);
  drawn.querySelectorAll("table").forEach(frameTable);
  for (const one of drawn.querySelectorAll(BLOCKS)) one.dir = directionOfBlock(one);
  return drawn;
}

/** The last block without blocks in it: the last paragraph of a list's last item, for example. */
function innermost(token) {
  const inside = { list: token.items, list_item: token.tokens, blockquote: token.tokens }[token.type];
  const last = inside?.findLast(({ type }) => type !== "space");
  return last ? innermost(last) : token;
}

/**
 * Complete an unfinished block, the end of `token`: close its open marks, which would be visible otherwise. Leave out
 * parts that mean something else until they are complete: a formula, the address of a link, the head of a table.
 */
function mended(raw, token) {
  const block = innermost(token);
  if (block.type === "code") return raw;
  if (/^\|[^\n]*(\n[|: -]*)?$/.test(raw)) return "";
  if (block === token) return completed(raw);
  const lines = raw.trimEnd().split("\n");
  const before = lines.splice(0, lines.length - block.raw.trim().split("\n").length);
  return [...before, completed(lines.join("\n"))].join("\n");
}

/** The text of a block without blocks in it, complete. */
function completed(raw) {
  const known = withoutOpenMaths(raw).trimEnd();
  const place = Math.max(0, known.length - LINK);
  const text = (known.slice(0, place) + known.slice(place).replace(/!?\[([^\][\n]{0,500})(?:\]\([^)\s]{0,2000})?$/, "$1"))
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

/**
 * The text direction of a block, by its first letter outside of code: an answer may mix Arabic and English. The browser's
 * own `auto` takes code for the text, and does not look into blocks within a block.
 */
function directionOfBlock(block) {
  const texts = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const direction = directionOf(texts.currentNode.data);
    if (direction && !texts.currentNode.parentElement.closest("code, .code")) return direction;
  }
  return "auto";
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
  const before = (pressed.dataset.text ??= label.data); // not "Copied", if it is pressed twice
  try {
    await navigator.clipboard.writeText(text);
    label.data = t("Copied");
  } catch {
    label.data = t("Not allowed"); // browsers allow the clipboard only with TLS or on localhost
  }
  setTimeout(() => (label.data = before), 1500); // long enough to be read
}
