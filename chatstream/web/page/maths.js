/** Maths in Markdown: TeX between `\(` and `\)`, `\[` and `\]`, or `$$` and `$$`, drawn as MathML, which browsers know. */

import { element } from "./dom.js";
import { t } from "./words.js";

const INLINE = "language-math";
const DISPLAY = "language-math-display";

// Bounded, so that a text of nothing but `\(` takes no more than linear time; longer formulas stay as they were written.
const SPAN = /^(?:\\\(([^]{1,1000}?)\\\)|\\\[([^]{1,1000}?)\\\]|\$\$([^$]{1,1000}?)\$\$)/;
const BLOCK = /^ {0,3}(?:\\\[([^]{1,5000}?)\\\]|\$\$([^$]{1,5000}?)\$\$)[ \t]*(?:\n|$)/;
// A formula that is still being written. It is not shown before it is whole: half a formula says something else.
const OPEN = /(?:\\\((?:(?!\\\))[^]){0,1000}|\\\[(?:(?!\\\])[^]){0,5000}|\$\$[^$]{0,5000}\$?)$/;

/** A formula as code, which is what stays if it cannot be drawn. */
function code(tex, kind) {
  const escaped = tex.trim().replace(/&/g, "&amp;").replace(/</g, "&lt;");
  return `<code class="${kind}">${escaped}</code>`;
}

/** For marked, which would take the backslashes for its own. */
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

/** `text` without the formula at its end that is still being written. */
export function withoutOpenMaths(text) {
  return text.replace(OPEN, "");
}

/** Draw the formulas in `root`; the library is loaded when the first one is met. */
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
      continue; // what was written stays
    }
    if (displayMode) {
      drawn.tabIndex = 0; // reachable by keyboard, for it may be wider than the page
      drawn.role = "group";
      drawn.ariaLabel = t("Formula");
    }
    formula.replaceWith(drawn);
  }
}
