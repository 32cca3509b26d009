/** Finds search words in a text like the server: a search word matches the beginning of a word. */

const WORD = /[\p{L}\p{N}\p{M}]+|\p{So}/gu;
const UNSPACED = /[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]/; // no spaces between words

// Normalizes a text like the server: without accents, invisible joiners between letters (as in Persian), and the Arabic
// letter that stretches words (tatweel).
const folded = (text) => text.normalize("NFKD").toLowerCase().replace(/[\p{M}\p{Cf}\u0640]/gu, "").replaceAll("ß", "ss");

/** Return `[from, to]` of each match in `text`, in order and without overlaps. */
export function places(text, sought) {
  const words = [...folded(sought).matchAll(WORD)].map(([word]) => word);
  if (words.length === 0) return [];
  let plain = "";
  const at = []; // for each character of `plain`: its index in `text`
  let index = 0;
  for (const character of text) {
    const part = folded(character);
    for (let each = 0; each < part.length; each++) at.push(index);
    plain += part;
    index += character.length;
  }
  at.push(text.length);
  const found = [];
  for (const word of words) {
    for (let from = plain.indexOf(word); from !== -1; from = plain.indexOf(word, from + word.length)) {
      const inside = from > 0 && /[\p{L}\p{N}]/u.test(plain[from - 1]);
      const whole = [...word].length > 1 || !/[\p{L}\p{N}]/u.test(plain[from + word.length] ?? " "); // one letter must be a whole word
      if (UNSPACED.test(word) || (!inside && whole)) found.push([at[from], at[from + word.length]]);
    }
  }
  found.sort(([a], [b]) => a - b);
  return found.filter(([from], i) => i === 0 || from >= Math.max(...found.slice(0, i).map(([, to]) => to)));
}

/** Return `text` as nodes with the matches marked. */
export function marked(text, sought) {
  const nodes = [];
  let end = 0;
  for (const [from, to] of places(text, sought)) {
    const mark = document.createElement("mark");
    mark.textContent = text.slice(from, to);
    nodes.push(text.slice(end, from), mark);
    end = to;
  }
  return [...nodes, text.slice(end)].filter((node) => node !== "");
}

/**
 * Mark the matches in the text of `root`, and remove all earlier marks. Does not change the elements.
 * Returns the first match, or null.
 */
export function highlight(root, sought) {
  if (!CSS.highlights) return null; // a browser from before 2025 cannot mark them
  const ranges = [];
  const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let node = sought && texts.nextNode(); node; node = texts.nextNode()) {
    if (!node.parentElement.closest(".body, .prose")) continue;
    for (const [from, to] of places(node.data, sought)) {
      const range = document.createRange();
      range.setStart(node, from);
      range.setEnd(node, to);
      ranges.push(range);
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
  return ranges[0]?.startContainer.parentElement ?? null;
}
