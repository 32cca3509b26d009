/** Maths in Markdown: TeX in `\(…\)`, `\[…\]` or `$$…$$` is drawn as MathML, which browsers can display. */

import { element } from "./dom.js";
import { t } from "./words.js";

const INLINE = "language-math";
const DISPLAY = "language-math-display";

// A formula. Its length is limited so that a text of many `\(` takes linear time. Longer formulas stay as TeX.
const SPAN = /^(?:\\\(([^]{1,1000}?)\\\)|\\\[([^]{1,1000}?)\\\]|\$\$([^$]{1,1000}?)\$\$)/;
const BLOCK = /^ {0,3}(?:\\\[([^]{1,5000}?)\\\]|\$\$([^$]{1,5000}?)\$\$)[ \t]*(?:\n|$)/;
// An unfinished formula at the end of the text. It is not shown, because half a formula has another meaning.
const OPEN = /(?:\\\((?:(?!\\\))[^]){0,1000}|\\\[(?:(?!\\\])[^]){0,5000}|\$\$[^$]{0,5000}\$?)$/;

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
    start: (text) => text.match(/^ {0,3}(?:\\\[|\$\$)/m)?.index,
    tokenizer(text) {
      const match = BLOCK.exec(text);
      return match ? { type: "mathsBlock", raw: match[0], tex: match[1] ?? match[2] } : undefined;
    },
    renderer: ({ tex }) => `<p>${code(tex, DISPLAY)}</p>`,
  },
  {
    name: "mathsSpan",
    level: "inline",
    start: (text) => text.match(/\\[([]|\$\$/)?.index,
    tokenizer(text) {
      const match = SPAN.exec(text);
      if (!match) return undefined;
      const [raw, inline, bracketed, dollars] = match;
      return { type: "mathsSpan", raw, tex: inline ?? bracketed ?? dollars, display: inline === undefined };
    },
    renderer: ({ tex, display }) => code(tex, display ? DISPLAY : INLINE),
  },
];

/** `text` without an unfinished formula at its end. */
export function withoutOpenMaths(text) {
  return text.replace(OPEN, "");
}

/** Draw the formulas in `root`. Loads the library (Temml) when the first formula comes. */
export async function drawMaths(root) {
  const formulas = [...root.querySelectorAll(`code:is(.${INLINE}, .${DISPLAY})`)].filter((found) => !found.closest("pre"));
  if (formulas.length === 0) return;
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
}
