/** The colours of code, once a block is whole; the library is loaded when the first block is met. */

import DOMPurify from "../vendor/dompurify.js";

const LONGEST = 20_000; // characters: some 20 ms of work, which is what a reader does not notice
const SPANS = { ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"], RETURN_DOM_FRAGMENT: true };

/** Colour `code`, an element of text in the language `language`, if that is known. */
export async function colour(code, language) {
  const text = code.textContent;
  if (text.length > LONGEST) return;
  const { default: highlight } = await import("../vendor/highlight.js");
  if (!highlight.getLanguage(language) || code.textContent !== text) return;
  code.replaceChildren(DOMPurify.sanitize(highlight.highlight(text, { language }).value, SPANS));
}
