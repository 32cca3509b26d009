/** What the server's app tells with an answer or finds in it, as cards. A plug-in may bring a module that draws a kind of
 * them; it is loaded with the first one. All else is shown by its names and values. */

import { element } from "./dom.js";
import { facts } from "./facts.js";
import { language } from "./words.js";

const ROWS = 20; // of a card: more is no card
const drawers = new Map(); // by kind: what draws it, null if that cannot be had; while it is loaded, the promise of it

/** The card of `{kind, id, data}`, with a `message` that says what it is if there is one. */
export function card(found) {
  const draw = drawers.get(found.kind) ?? (Object.hasOwn(facts.cards, found.kind) && !drawers.has(found.kind) ? load(found.kind) : null);
  if (draw === null) return general(found);
  if (typeof draw === "function") return own(draw, found);
  const place = element("div");
  draw.then(() => place.replaceWith(card(found)));
  return place;
}

/** Once all modules are there that have been asked for so far. */
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
    return general(found); // what it has is not what its plug-in expects
  }
}

/** The names and values of an object, or a value. */
function general({ kind, message, data }) {
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const isObject = data !== null && typeof data === "object" && !Array.isArray(data);
  const rows = isObject ? Object.entries(data).filter(([, value]) => value !== null).slice(0, ROWS) : [];
  const cells = rows.flatMap(([name, value]) => [element("dt", { dir: "auto" }, name), element("dd", { dir: "auto" }, text(value))]);
  const body = isObject ? element("dl", {}, ...cells) : element("p", { dir: "auto" }, text(data));
  return element("section", { className: "card" }, element("h3", {}, message || kind.replaceAll(/[_-]/g, " ")), body);
}
