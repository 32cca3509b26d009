/** Reads Markdown as models mean it, where the specifications (CommonMark, GitHub's) read something else. */

import { Tokenizer } from "../vendor/marked.js";
import { replaceFormulas } from "./maths.js";

// Chinese, Japanese and Korean letters and punctuation: no spaces stand between words, so bold text begins and ends
// anywhere. CommonMark refuses `**「強調」**です`, because punctuation is inside and a letter outside.
const EAST_ASIAN = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\u3000-\u303f\uff00-\uffef]/u;
// Limited, so that a text of many `**` takes linear time.
const BOLD = /^\*\*(?![\s*])(?:[^*\n]|\*(?!\*)){0,500}?[^\s*]\*\*(?!\*)/;
const HEAD_OF_TABLE = /^ {0,3}[^\n|]*\|[^\n]*\n[ |:]*-[ |:-]*(?:\n|$)/;
const HOLDS_BARS = /(?<!`)(`{1,3})(?!`)[^\n]{1,500}?(?<!`)\1(?!`)|\\\([^\n]{1,500}?\\\)|\$\$[^$\n]{1,500}?\$\$/g;
const BAR = /(?<!\\)\|/g;
const OUTER_BARS = /^\||(?<!\\)\|$/g;

/** The number of bars between the cells of a table's row. */
const barsIn = (row) => row.trim().replace(OUTER_BARS, "").match(BAR)?.length ?? 0;

const escapeBars = (text) => text.replace(BAR, "\\|");

/** Methods for marked's tokenizer. `undefined` means that the mark is text, `false` that marked decides. */
export const lenient = {
  // One tilde is no mark: "1~2 or 3~4 hours" is written so in East Asia.
  del: (text) => (text.startsWith("~~") ? false : undefined),

  emStrong(text, masked, before) {
    const [raw] = BOLD.exec(masked.slice(-text.length)) ?? []; // in `masked`, code and links contain no marks
    if (!raw || !EAST_ASIAN.test(`${before}${raw.at(2)}${raw.at(-3)}${text.charAt(raw.length)}`)) return false;
    const inner = text.slice(2, raw.length - 2);
    return { type: "strong", raw: text.slice(0, raw.length), text: inner, tokens: this.lexer.inlineTokens(inner) };
  },

  // A bar in code or in a formula separates no cells, if the row would have too many otherwise.
  table(text) {
    if (!HEAD_OF_TABLE.test(text)) return false;
    const end = text.search(/\n[ \t]*(?:\n|$)/);
    const rows = (end === -1 ? text : text.slice(0, end)).split("\n");
    const most = barsIn(rows[1]);
    const escaped = rows.map((row) =>
      barsIn(row) > most ? replaceFormulas(row.replace(HOLDS_BARS, escapeBars), escapeBars) : row,
    );
    const token = Tokenizer.prototype.table.call(this, escaped.join("\n"));
    if (!token) return token;
    const lines = token.raw.trimEnd().split("\n").length;
    return { ...token, raw: rows.slice(0, lines).join("\n") };
  },
};
