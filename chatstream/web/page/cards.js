/** Cards for an answer's data and annotations. A plug-in may have a module that draws one kind; it is loaded when the
 * first card of that kind is shown. Other kinds are shown as names and values. */

import { element } from "./dom.js";
import { facts } from "./facts.js";
import { language } from "./words.js";

const ROWS = 20; // maximum number of rows of a card
const drawers = new Map(); // by kind: the drawing function, its promise while loading, or null if it failed

/** The card for `{kind, id, data}`, with its `message` as a title if there is one. */
export function card(found) {
  const draw = drawers.get(found.kind) ?? (Object.hasOwn(facts.cards, found.kind) && !drawers.has(found.kind) ? load(found.kind) : null);
  if (draw === null) return general(found);
  if (typeof draw === "function") return own(draw, found);
  const place = element("div");
  draw.then(() => place.replaceWith(card(found)));
  return place;
}

/** Resolves when all modules requested so far are loaded. */
export function allLoaded() {
  return Promise.all([...drawers.values()].filter((draw) => draw instanceof Promise));
}

function load(kind) {
  const address = (name) => new URL(`cards/${name}`, import.meta.url).href;
  const [script, ...styles] = facts.cards[kind];
  const styled = styles.map((name) => new Promise((done) => {
    document.head.append(element("link", { rel: "stylesheet", href: address(name), onload: done, onerror: done }));
  }));
  const loading = Promise.all([import(address(script)), ...styled]).then(
    ([{ default: draw }]) => drawers.set(kind, typeof draw === "function" ? draw : null),
    () => drawers.set(kind, null),
  );
  drawers.set(kind, loading);
  return loading;
}

function own(draw, found) {
  try {
    return draw(found, { element, language });
  } catch {
    return general(found); // the drawing function has failed: show names and values
  }
}

/** Draw the names and values of an object as a table, or a single value. */
function general({ kind, message, data }) {
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const isObject = data !== null && typeof data === "object" && !Array.isArray(data);
  const rows = isObject ? Object.entries(data).filter(([, value]) => value !== null).slice(0, ROWS) : [];
  const cells = rows.flatMap(([name, value]) => [element("dt", { dir: "auto" }, name), element("dd", { dir: "auto" }, text(value))]);
  const body = isObject ? element("dl", {}, ...cells) : element("p", { dir: "auto" }, text(data));
  return element("section", { className: "card" }, element("h3", {}, message || kind.replaceAll(/[_-]/g, " ")), body);
}
