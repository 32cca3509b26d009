/**
 * Maths in Markdown: TeX in `\(…\)`, `\[…\]`, `$$…$$` or `$…$` is drawn as MathML, which browsers can display. Between
 * single dollars only what cannot be an amount of money: "$5 and $10" stays text.
 */

import { element } from "./dom.js";
import { t } from "./words.js";

const INLINE = "language-math";
const DISPLAY = "language-math-display";

// The pairs of marks, and how long a formula may be. Longer ones stay as TeX: a text of many `\(` takes linear time.
const MARKS = { "\\(": "\\)", "\\[": "\\]", "$$": "$$" };
const LONGEST = 1_000; // inside a paragraph
const LONGEST_BLOCK = 5_000;
// As in pandoc (tex_math_dollars), but no letter may follow either: `$my_var/$other`. Shorter than `RECENT` in growing.js.
const DOLLARS = /(?<![\w$\\])\$(?![\s$])([^$\n]{1,200})(?<![\s\\])\$(?!(?!th\b)[\w${(])/g;
const OPEN_DOLLAR = /(?<![\w$\\])\$(?![\s$])([^$\n]{0,200})$/;
// Parts of TeX that are or have words: commands, names, and what stands lower or higher.
const NAMES = /\\(?:begin|end|text\w*|math\w+|operatorname|mbox)\*?\s*\{[^{}]*(?:\}|$)|\\[a-z]+|[_^]\s*\{[^{}]*(?:\}|$)/gi;
const FORMULAS = /\\\([^\n]{1,1000}?\\\)|\\\[[^\n]{1,1000}?\\\]|\$\$[^$\n]{1,1000}?\$\$/g;
const CODE = /(?<!`)(`{1,3})(?!`)[^`\n]+\1(?!`)/g; // `$$` in it is no mark

/** Whether a text may contain a formula on lines of its own. */
export function mayHaveMaths(text) {
  return text.includes("\\]") || text.includes("$$");
}

/** The formula with which `text` starts: its `mark`, its TeX and its `length` with the marks; or undefined. */
function formula(text, longest) {
  const mark = text.slice(0, 2);
  const end = MARKS[mark];
  if (end === undefined) return undefined;
  const inside = text.slice(2, 2 + longest + 2);
  const length = inside.indexOf(end, 1);
  if (length === -1 || (mark === "$$" && inside.indexOf("$") < length)) return undefined;
  return { mark, tex: inside.slice(0, length), length: 2 + length + 2 };
}

/** Whether what stands between two single dollars is surely a formula. */
function isFormula(tex) {
  if (/[£€¥%#@"]|\p{L}{4,}/u.test(tex.replace(NAMES, " "))) return false; // a sentence with amounts of money
  if (/^[^\p{L}\\]*\d/u.test(tex)) return /[\\^{]/.test(tex); // a number comes first: it may be an amount
  return /^\p{L}$|[\\^_{}=<>+*/()|'-]/u.test(tex);
}

/** The formula between single dollars with which `text` starts, like `formula`. `before`: the character before it. */
function betweenDollars(text, before) {
  if (text[0] !== "$") return undefined;
  const [found] = (before + text.slice(0, 205)).matchAll(DOLLARS); // the longest one with its dollars, and what may follow
  if (found?.index !== before.length || !isFormula(found[1])) return undefined;
  return { mark: "$", tex: found[1], length: found[0].length };
}

/** `text` with each formula between single dollars replaced by `replacement(formula)`. */
export function replaceFormulas(text, replacement) {
  return text.replace(DOLLARS, (found, tex) => (isFormula(tex) ? replacement(found) : found));
}

/** `masked`, a copy of `text` in which marked looks for marks, with letters in place of formulas: a `*` in them is no mark. */
export function maskFormulas(masked, text) {
  if (!/\\[([]|\$/.test(text)) return masked;
  const mask = (found) => "\0".repeat(found.length);
  const places = replaceFormulas(text.replace(CODE, blank).replace(FORMULAS, mask), mask);
  return places.replace(/\0+|[^\0]+/g, (run, place) => (run[0] === "\0" ? "x".repeat(run.length) : masked.slice(place, place + run.length)));
}

/** A formula as HTML code. It stays so if it cannot be drawn. */
function code(tex, kind) {
  const escaped = tex.trim().replace(/&/g, "&amp;").replace(/</g, "&lt;");
  return `<code class="${kind}">${escaped}</code>`;
}

/** Extensions for marked, which otherwise reads the backslashes as Markdown escapes. */
export const mathsExtensions = [
  {
    name: "mathsBlock",
    level: "block",
    // Without `start`: markdown.js lets a paragraph end before a line that starts like this.
    tokenizer(text) {
      const indent = /^ {0,3}/.exec(text)[0].length;
      const found = formula(text.slice(indent, indent + LONGEST_BLOCK + 4), LONGEST_BLOCK);
      if (!found || found.mark === "\\(") return undefined;
      const after = /^[ \t]*(?:\n|$)/.exec(text.slice(indent + found.length));
      return after ? { type: "mathsBlock", raw: text.slice(0, indent + found.length + after[0].length), tex: found.tex } : undefined;
    },
    renderer: ({ tex }) => `<p>${code(tex, DISPLAY)}</p>`,
  },
  {
    name: "mathsSpan",
    level: "inline",
    start: (text) => text.match(/\\[([]|\$/)?.index,
    tokenizer(text, before) {
      const found = formula(text, LONGEST) ?? betweenDollars(text, before.at(-1)?.raw.slice(-1) ?? "");
      if (!found) return undefined;
      const display = found.mark === "\\[" || found.mark === "$$";
      return { type: "mathsSpan", raw: text.slice(0, found.length), tex: found.tex, display };
    },
    renderer: ({ tex, display }) => code(tex, display ? DISPLAY : INLINE),
  },
];

/** `text` without an unfinished formula at its end: half a formula has another meaning. */
export function withoutOpenMaths(text) {
  const openAt = (mark, longest) => {
    const closed = text.lastIndexOf(MARKS[mark]); // -1: never
    const start = text.indexOf(mark, Math.max(closed + 1, text.length - longest - 2));
    return start === -1 ? text.length : start;
  };
  const outside = text.replace(CODE, blank);
  const pieces = outside.split("$$");
  const last = pieces.at(-1).length;
  const isOpen = pieces.length % 2 === 0 && last <= LONGEST_BLOCK && !/\$[^]/.test(pieces.at(-1)); // no formula holds a `$`
  const dollars = isOpen ? last + 2 : 0;
  const open = Math.max(dollars, openDollar(outside.slice(outside.lastIndexOf("\n") + 1)));
  return text.slice(0, Math.min(openAt("\\(", LONGEST), openAt("\\[", LONGEST_BLOCK), text.length - open));
}

/** The length of an unfinished formula in single dollars at the end of a line; 0 if an amount of money may be there. */
function openDollar(line) {
  const [found, tex] = OPEN_DOLLAR.exec(replaceFormulas(line, blank)) ?? [""];
  return tex === "" || (tex && isFormula(tex.trim())) ? found.length : 0;
}

function blank(text) {
  return " ".repeat(text.length);
}

/** Draw the formulas in `root`. Loads the library (Temml) when the first formula comes. False if there are none. */
export async function drawMaths(root) {
  const formulas = [...root.querySelectorAll(`code:is(.${INLINE}, .${DISPLAY})`)].filter((found) => !found.closest("pre"));
  if (formulas.length === 0) return false;
  const { default: temml } = await import("../vendor/temml.js");
  for (const formula of formulas) {
    const displayMode = formula.classList.contains(DISPLAY);
    const drawn = element("span", { className: displayMode ? "maths display" : "maths" });
    try {
      temml.render(formula.textContent, drawn, { displayMode, throwOnError: true, maxSize: [25, 500] });
    } catch {
      continue; // it cannot be drawn and stays as code
    }
    if (displayMode) {
      drawn.tabIndex = 0; // so that the keyboard can scroll it: it may be wider than the page
      drawn.role = "group";
      drawn.ariaLabel = t("Formula");
    }
    formula.replaceWith(drawn);
  }
  return true;
}
