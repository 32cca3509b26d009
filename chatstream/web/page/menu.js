/** A menu next to a button: a popover of buttons, with arrow-key navigation. */

export class Menu {
  #root;
  #opener;

  /** `opener()` returns the button that opened the menu, if it is still on the page. */
  constructor(root, opener) {
    this.#root = root;
    this.#opener = opener;
    addEventListener("resize", () => this.close()); // its button may have moved
    root.onkeydown = (press) => this.#onKey(press);
    root.ontoggle = ({ newState }) => opener()?.setAttribute("aria-expanded", String(newState === "open"));
  }

  /** Open the menu below the element `at`, or above it if there is no room, and inside the window's edges. */
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
