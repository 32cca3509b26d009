/** Colours the code in a finished code block. Loads the library (highlight.js) when the first block comes. */

import DOMPurify from "../vendor/dompurify.js";

const LONGEST = 20_000; // characters; longer code stays plain. Colouring this much takes some 20 ms: not noticeable
const SPANS = { ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"], RETURN_DOM_FRAGMENT: true };

/** Colour the text of the element `code`, if the library knows `language`. */
export async function colour(code, language) {
  const text = code.textContent;
  if (text.length > LONGEST) return;
  const { default: highlight } = await import("../vendor/highlight.js");
  if (!highlight.getLanguage(language) || code.textContent !== text) return;
  code.replaceChildren(DOMPurify.sanitize(highlight.highlight(text, { language }).value, SPANS));
}
