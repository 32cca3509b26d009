/** Applies the operator's name, words, examples, colours and logo to the page; see conf/page.toml.example. */

import { byId, element } from "./dom.js";
import { facts } from "./facts.js";
import { language, t } from "./words.js";

const CONTRAST = 4.5; // of text, and more than lines need (WCAG 2.2, 1.4.3)
const PAPERS = ["#fbfaf6", "#121614"]; // as in page.css

/** The operator's texts in the page's language. The page's own texts replace missing ones. */
const said = facts.words[language] ?? {};
const words = {
  greeting: said.greeting ?? t("How can I help?"),
  introduction: said.introduction ?? t("Ask anything. The answer appears as it is written."),
  placeholder: said.placeholder ?? t("Ask anything"),
  examples: said.examples ?? [
    t("Write a function that finds palindromes"),
    t("Compare three ways to make coffee"),
    t("Explain the Pythagorean theorem"),
    t("Give me five ideas for a rainy Sunday"),
  ],
  note: said.note ?? "",
};

/** The page's name. */
export const { name } = facts;

/** Apply the operator's settings to the page. */
export function showOwnPage() {
  document.title = name;
  for (const brand of document.querySelectorAll(".brand")) {
    brand.textContent = name;
    if (facts.logo) brand.prepend(element("img", { src: facts.logo, alt: "" }));
    brand.classList.toggle("with-logo", Boolean(facts.logo));
  }
  for (const part of ["greeting", "introduction", "note"]) byId(part).textContent = words[part];
  byId("text").placeholder = words.placeholder;
  const example = (textContent) => element("li", {}, element("button", { type: "button", textContent, dir: "auto" }));
  byId("examples").replaceChildren(...words.examples.map(example));
  byId("demo").hidden = !facts.demo;
  showColours();
}

function showColours() {
  const { style } = document.documentElement;
  for (const [colour, [light, dark]] of Object.entries(facts.colours)) {
    style.setProperty(`--${colour}`, `light-dark(${light}, ${dark})`);
  }
  if (!facts.colours.accent) return;
  const [light, dark] = facts.colours.accent.map(readable);
  const papers = facts.colours.paper ?? PAPERS;
  const marks = facts.colours.accent.map((accent, theme) => visible(accent, papers[theme]));
  style.setProperty("--mark", `light-dark(${marks.join(", ")})`);
  style.setProperty("--on-accent", `light-dark(${light}, ${dark})`);
  style.setProperty("--tint", "color-mix(in oklab, var(--accent) 12%, var(--paper))");
}

/** Return black or white: the one with the better contrast on this colour. */
function readable(colour) {
  return (luminance(parts(colour)) + 0.05) ** 2 > 0.05 * 1.05 ? "#000000" : "#ffffff";
}

/** Return the colour, mixed with as little black or white as makes its contrast on this paper enough for text. */
function visible(colour, paper) {
  const end = readable(paper) === "#000000" ? 0 : 255;
  const on = luminance(parts(paper)) + 0.05;
  for (let share = 0; ; share += 0.05) {
    const mixed = parts(colour).map((part) => Math.round(part + (end - part) * Math.min(share, 1)));
    const [low, high] = [luminance(mixed) + 0.05, on].sort((a, b) => a - b);
    if (high / low >= CONTRAST || share >= 1) return `rgb(${mixed.join(" ")})`;
  }
}

/** Red, green and blue of `#rrggbb`, each from 0 to 255. */
function parts(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

/** The relative luminance of a colour (WCAG 2.2). */
function luminance(colour) {
  const [red, green, blue] = colour.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
