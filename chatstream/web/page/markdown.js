/** Markdown to HTML, by marked. The HTML is not safe yet: prose.js sanitises it. All of it takes linear time. */

import { Lexer, Marked, Tokenizer } from "../vendor/marked.js";
import { part, RECENT } from "./growing.js";
import { lenient } from "./lenient.js";
import { maskFormulas, mathsExtensions, mayHaveMaths } from "./maths.js";
import { isBlock, isDrawn, mayStartBlock, pairTags, written } from "./tags.js";

const MAX_DEPTH = 30; // of quotes and lists in each other; deeper ones are text, or the parser's recursion would overflow
const LONG = 4_000; // characters of a paragraph above which it is parsed in pieces: parsing takes quadratic time
const PIECE = 2_000; // characters parsed at once

/** A tokenizer of blocks that contain blocks, up to `MAX_DEPTH`. */
function nested(name) {
  return function (text) {
    if (this.lexer.depth >= MAX_DEPTH) return undefined;
    this.lexer.depth++;
    try {
      return Tokenizer.prototype[name].call(this, text);
    } finally {
      this.lexer.depth--;
    }
  };
}

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
    blockquote: nested("blockquote"),
    list: nested("list"),
    // A block that starts with a forbidden tag becomes a paragraph, so that the Markdown in it is drawn.
    html(text) {
      if (!mayStartBlock(text)) return undefined;
      const token = Tokenizer.prototype.html.call(this, text);
      if (!token || isBlock(token.text)) return token;
      const inner = token.text.trim();
      return { type: "paragraph", raw: token.raw, text: inner, tokens: this.lexer.inline(inner) };
    },
    ...lenient,
    // Comments and the like are text. For each `<!--`, marked would search all of the rest for its end.
    tag: (text) => (/^<[!?]/.test(text) ? undefined : false),
  },
});

// In marked's expression for a paragraph: the HTML before which it ends.
const TAGS = /address\|article[\w|[\]-]*/g;
const OTHERS = String.raw`<(?:(?:script|pre|style|textarea)(?:[\s>]|$)|!--)|<\?|<![A-Za-z]|<!\[CDATA\[`;
const drawnOf = (names) => names.split("|").filter((name) => name === "h[1-6]" || isDrawn(name)).join("|");
const NEVER = "(?!)";
const PARAGRAPH = Lexer.rules.block.gfm.paragraph.source;
// Otherwise an update of marked would silently bring the quadratic time back.
if (PARAGRAPH.search(TAGS) === -1 || !PARAGRAPH.includes(OTHERS)) throw new Error("marked has another expression for paragraphs");

/**
 * The expression for a paragraph. It ends before a line that starts another block. marked's own also ends before HTML
 * that is not drawn here; marked would then join the paragraph again line by line, which takes quadratic time.
 */
function paragraph(text) {
  const pre = /<\/pre>/i.test(text) ? String.raw`<pre(?:[\s>]|$)` : NEVER;
  const maths = mayHaveMaths(text) ? String.raw`\\\[|\$\$` : NEVER;
  return new RegExp(PARAGRAPH.replace(TAGS, drawnOf).replaceAll(OTHERS, () => `${pre}|${maths}`));
}

/** marked's lexer, with long paragraphs parsed in pieces. */
class PiecesLexer extends Lexer {
  depth = 0; // of the quotes and lists around what is being parsed
  #inline = ""; // the text whose marks are being parsed

  constructor(options) {
    super({ ...options, hooks: { emStrongMask: (masked) => maskFormulas(masked, this.#inline) } });
  }

  #parse(text, tokens) {
    this.#inline = text;
    return super.inlineTokens(text, tokens);
  }

  inlineTokens(text, tokens = []) {
    let rest = text;
    while (rest.length > LONG) {
      const before = { ...this.state };
      const piece = this.#parse(rest.slice(0, PIECE), []);
      const found = part(piece, PIECE - RECENT);
      Object.assign(this.state, before);
      const places = [found?.length ?? 0, rest.lastIndexOf(" ", PIECE) + 1, PIECE];
      const end = places.find((place) => place > PIECE / 4);
      this.#parse(rest.slice(0, end), tokens);
      rest = rest.slice(end);
    }
    return this.#parse(rest, tokens);
  }
}

/** The tokens of a Markdown text. */
export function lex(text) {
  const lexer = new PiecesLexer(marked.defaults);
  const { rules } = lexer.tokenizer;
  lexer.tokenizer.rules = { ...rules, block: { ...rules.block, paragraph: paragraph(text) } };
  const tokens = lexer.lex(text);
  pairTags(tokens);
  marked.walkTokens(tokens, (token) => {
    if (token.tokens) pairTags(token.tokens);
    if (token.type === "table") for (const cell of [token.header, ...token.rows].flat()) pairTags(cell.tokens);
  });
  return tokens;
}

/** The HTML of tokens. */
export function htmlOf(tokens) {
  return marked.parser(tokens);
}
