/** Applies the operator's name, words, examples, colours and logo to the page; see conf/page.toml.example. */

import { byId, element } from "./dom.js";
import { facts } from "./facts.js";
import { language, t } from "./words.js";

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
  style.setProperty("--on-accent", `light-dark(${light}, ${dark})`);
  style.setProperty("--tint", "color-mix(in oklab, var(--accent) 12%, var(--paper))");
}

/** Return black or white: the one with the better contrast on this colour (WCAG 2.2, relative luminance). */
function readable(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const part = parseInt(colour.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return (luminance + 0.05) ** 2 > 0.05 * 1.05 ? "#000000" : "#ffffff";
}
