/** A menu at a button: a popover of buttons, with arrow-key navigation. */

export class Menu {
  #root;
  #opener;

  /** `opener()` is the button that opened it, if it is still there. */
  constructor(root, opener) {
    this.#root = root;
    this.#opener = opener;
    addEventListener("resize", () => this.close()); // it stands where its button was
    root.onkeydown = (press) => this.#onKey(press);
    root.ontoggle = ({ newState }) => opener()?.setAttribute("aria-expanded", String(newState === "open"));
  }

  /** Below `at`, or above it where there is no room; and never past an edge. */
  open(at) {
    this.#root.showPopover();
    const { top, bottom, right } = at.getBoundingClientRect();
    const { width, height } = this.#root.getBoundingClientRect();
    const below = bottom + height < innerHeight;
    this.#root.style.left = `${Math.max(4, right - width)}px`;
    this.#root.style.top = `${Math.max(4, below ? bottom : top - height)}px`;
    this.#items[0]?.focus();
  }

  close() {
    this.#root.hidePopover();
  }

  get #items() {
    return [...this.#root.querySelectorAll("button:not([hidden])")];
  }

  #onKey(press) {
    const items = this.#items;
    const place = items.indexOf(document.activeElement);
    const to = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: -1 }[press.key];
    if (press.key === "Tab") this.close();
    if (to === undefined) return;
    press.preventDefault();
    items.at(to % items.length).focus();
  }
}
