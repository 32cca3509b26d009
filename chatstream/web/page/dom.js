/** The few lines that building a page by hand takes. No markup is ever made from text here. */

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id; all of them stand in index.html. */
export const byId = (id) => document.getElementById(id);

/** A new element with these properties and children; a string is a text. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** One of the symbols at the top of index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon, and a text if it has one; `label` says to everybody what it does. */
export function button({ className, label, name, text = "", onclick }) {
  return element("button", { type: "button", className, ariaLabel: label, title: label, onclick }, icon(name), text);
}

const LONGEST_REST = 250; // ms; who waits longer believes that nothing comes

/** `draw` at most once a frame, and in at most a fifth of the time, unless it takes very long; only the last call counts. */
export function sparing(draw) {
  let wanted = false;
  let rest = 0; // until when nothing is drawn
  const frame = () => {
    if (performance.now() < rest) {
      requestAnimationFrame(frame);
      return;
    }
    wanted = false;
    const begun = performance.now();
    draw();
    const took = performance.now() - begun;
    rest = begun + took + Math.min(4 * took, LONGEST_REST);
  };
  return () => {
    if (!wanted) requestAnimationFrame(frame);
    wanted = true;
  };
}

/** Disable `button` until `end`, by the page's clock, and have it say `text(time)` meanwhile, afterwards `text(null)`.
 * Returns what ends the counting; it ends by itself when the button is gone. */
export function countDown(button, end, text) {
  let timer = 0;
  const count = () => {
    const left = Math.max(0, end - performance.now());
    button.disabled = left > 0;
    button.textContent = text(left > 0 ? duration(left) : null);
    if (left > 0) timer = setTimeout(() => button.isConnected && count(), left % 1000 || 1000);
  };
  count();
  return () => clearTimeout(timer);
}

/** Seconds for as long as somebody counts along. */
function duration(milliseconds) {
  const seconds = Math.ceil(milliseconds / 1000);
  if (seconds <= 120) return `${seconds} s`;
  return seconds <= 7_200 ? `${Math.ceil(seconds / 60)} min` : `${Math.ceil(seconds / 3_600)} h`;
}

const BOTTOM = 48; // px; a reader so near to the end is at the end

/** A box that stays at its end while more comes, until its reader goes up; and again when they come back down. */
export class Tail {
  #box;
  #onchange;
  #isEmpty;
  #following = true;
  #scrolled = 0;

  /** `onchange(following)` is called whenever it may have changed; while it `isEmpty()`, it stays at its beginning. */
  constructor(box, { isEmpty = () => false, onchange = () => {} } = {}) {
    this.#box = box;
    this.#isEmpty = isEmpty;
    this.#onchange = onchange;
    box.onscroll = () => {
      const { scrollTop, scrollHeight, clientHeight } = box;
      if (scrollHeight - scrollTop - clientHeight < BOTTOM) this.#following = true;
      else if (scrollTop < this.#scrolled) this.#following = false; // only a reader scrolls up; more text never does
      this.#scrolled = scrollTop;
      onchange(this.#following);
    };
    new ResizeObserver(() => this.follow()).observe(box); // a phone was turned, or its keyboard came up
  }

  /** More has come. */
  follow() {
    if (this.#following) this.#box.scrollTop = this.#isEmpty() ? 0 : this.#box.scrollHeight;
    this.#onchange(this.#following || this.#isEmpty());
  }

  toEnd() {
    this.#following = true;
    this.follow();
  }

  /** `element` is shown in the middle, and what comes at the end does not take it away. */
  goTo(element) {
    this.#following = false;
    element.scrollIntoView({ block: "center" });
    this.#onchange(false);
  }
}
