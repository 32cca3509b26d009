/** Maths in Markdown: TeX in `\(…\)`, `\[…\]` or `$$…$$` is drawn as MathML, which browsers can display. */

import { element } from "./dom.js";
import { t } from "./words.js";

const INLINE = "language-math";
const DISPLAY = "language-math-display";

// The pairs of marks, and how long a formula may be. Longer ones stay as TeX: a text of many `\(` takes linear time.
const MARKS = { "\\(": "\\)", "\\[": "\\]", "$$": "$$" };
const LONGEST = 1_000; // inside a paragraph
const LONGEST_BLOCK = 5_000;
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
    start: (text) => text.match(/\\[([]|\$\$/)?.index,
    tokenizer(text) {
      const found = formula(text, LONGEST);
      return found && { type: "mathsSpan", raw: text.slice(0, found.length), tex: found.tex, display: found.mark !== "\\(" };
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
  const pieces = text.replace(CODE, (code) => " ".repeat(code.length)).split("$$");
  const last = pieces.at(-1).length;
  const isOpen = pieces.length % 2 === 0 && last <= LONGEST_BLOCK && !/\$[^]/.test(pieces.at(-1)); // no formula holds a `$`
  const dollars = isOpen ? last + 2 : 0;
  return text.slice(0, Math.min(openAt("\\(", LONGEST), openAt("\\[", LONGEST_BLOCK), text.length - dollars));
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
