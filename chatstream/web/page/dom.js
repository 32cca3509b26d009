/** Helpers to build the page's elements. They insert all text as text, never as HTML. */

const RIGHT_TO_LEFT = /^[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u;
const SVG = "http://www.w3.org/2000/svg";

/** The element with this id, which must be in index.html. */
export const byId = (id) => document.getElementById(id);

/** Create an element with these properties and children. A string becomes a text node. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Create an icon from a symbol at the top of index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Create a button with an icon and optional text. `label` is its tooltip and its name for screen readers. */
export function button({ className, label, name, text = "", onclick }) {
  return element("button", { type: "button", className, ariaLabel: label, title: label, onclick }, icon(name), text);
}

/** Replace what is in `box`. The focus stays at the button of the same name, or else at the first button. */
export function redraw(box, ...children) {
  const focused = box.contains(document.activeElement) && document.activeElement;
  box.replaceChildren(...children);
  if (!focused) return;
  const buttons = [...box.querySelectorAll("button:not(:disabled)")];
  (buttons.find(({ title, textContent }) => (title || textContent) === (focused.title || focused.textContent)) ?? buttons[0])?.focus();
}

/** The direction of a text, by its first letter; null without one. */
export function directionOf(text) {
  const [letter] = /\p{L}/u.exec(text) ?? [];
  return letter ? (RIGHT_TO_LEFT.test(letter) ? "rtl" : "ltr") : null;
}

/** Whether a key press belongs to an input method. Safari tells its last one, the Enter that chooses a word, by 229. */
export function composes({ isComposing, keyCode }) {
  return isComposing || keyCode === 229;
}

const LONGEST_REST = 250; // ms: maximum pause between two drawings; after a longer one the answer seems to have stopped

/**
 * Return a function that requests a call of `draw`. Requests are combined: `draw` runs at most once per frame. After a
 * call it rests four times as long as it took, up to `LONGEST_REST`: so drawing normally takes a fifth of the time.
 */
export function sparing(draw) {
  let wanted = false;
  let rest = 0; // time before which nothing is drawn
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

/**
 * Disable `button` until the time `end` (of `performance.now()`). Its text is `text(time left)`, then `text(null)`.
 * Returns a function that stops this early. It also stops when the button is removed from the page.
 */
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

/** A time in text: in seconds up to two minutes, in minutes up to two hours, then in hours. */
function duration(milliseconds) {
  const seconds = Math.ceil(milliseconds / 1000);
  if (seconds <= 120) return `${seconds} s`;
  return seconds <= 7_200 ? `${Math.ceil(seconds / 60)} min` : `${Math.ceil(seconds / 3_600)} h`;
}

const BOTTOM = 48; // px: a scroll position within this distance from the end counts as the end

/** Keeps a box scrolled to its end while its content grows, except when the reader has scrolled up. */
export class Tail {
  #box;
  #onchange;
  #isEmpty;
  #following = true;
  #scrolled = 0;

  /** `onchange(following)` is called when `following` may have changed. While `isEmpty()`, the box stays at its top. */
  constructor(box, { isEmpty = () => false, onchange = () => {} } = {}) {
    this.#box = box;
    this.#isEmpty = isEmpty;
    this.#onchange = onchange;
    box.onscroll = () => {
      const { scrollTop, scrollHeight, clientHeight } = box;
      if (scrollHeight - scrollTop - clientHeight < BOTTOM) this.#following = true;
      else if (scrollTop < this.#scrolled) this.#following = false; // new text never scrolls up, so the reader did
      this.#scrolled = scrollTop;
      onchange(this.#following || this.#isEmpty());
    };
    new ResizeObserver(() => this.follow()).observe(box); // when a phone is turned, or its keyboard opens
  }

  /** Scroll to the end if the reader is there. Call this after the content has grown. */
  follow() {
    if (this.#following) this.#box.scrollTop = this.#isEmpty() ? 0 : this.#box.scrollHeight;
    this.#onchange(this.#following || this.#isEmpty());
  }

  toEnd() {
    this.#following = true;
    this.follow();
  }

  /** Scroll `element` to the middle, and stop following the end, so that it stays in view. */
  goTo(element) {
    this.#following = false;
    element.scrollIntoView({ block: "center" });
    this.#onchange(false);
  }
}
