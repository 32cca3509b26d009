/**
 * The list of messages, in groups. The browser neither lays out nor paints a group out of sight (`content-visibility`), so
 * a frame costs about the same in a chat of 500 messages and in one of ten. Groups and not single messages: the browser
 * looks in each frame which ones are in sight.
 */

import { element } from "./dom.js";

const MOST = 20; // messages in a group: two or three screens of them

export class Groups {
  #root;
  #width = 0;

  constructor(root) {
    this.#root = root;
    new ResizeObserver(() => this.#onResize()).observe(root);
  }

  /** Show these elements, in this order. Others are removed; those that stay are not touched. */
  show(wanted) {
    const kept = new Set(wanted);
    for (const group of [...this.#root.children]) {
      for (const one of [...group.children]) if (!kept.has(one)) this.#remove(one);
    }
    let next = this.#root.firstElementChild?.firstElementChild ?? null;
    for (const one of wanted) {
      if (one === next) next = after(one);
      else this.#insert(one, next);
    }
    this.#settle();
  }

  /** Put `one` before `next`, or at the end. */
  #insert(one, next) {
    if (one.isConnected) this.#remove(one); // it has moved
    const into = next?.parentElement;
    if (next && next.previousElementSibling) {
      next.before(one);
      unsettle(into);
      return;
    }
    // Between two groups, or at the end: into the group before, if it has room.
    let group = into ? into.previousElementSibling : this.#root.lastElementChild;
    if (!group || group.childElementCount >= MOST) {
      group = element("div", { className: "group" });
      this.#root.insertBefore(group, into ?? null);
    }
    group.append(one);
    unsettle(group);
  }

  #remove(one) {
    const group = one.parentElement;
    one.remove();
    unsettle(group);
    if (!group.hasChildNodes()) group.remove();
  }

  /** Let the browser skip the groups that are whole. It needs their heights, or the reader's place would jump. */
  #settle() {
    const groups = [...this.#root.querySelectorAll(":scope > .group:not(.settled, :last-child)")];
    const heights = groups.map((group) => group.getBoundingClientRect().height);
    groups.forEach((group, index) => {
      if (heights[index] === 0) return; // the chat is hidden, behind the sign-in
      group.style.containIntrinsicBlockSize = `auto ${heights[index]}px`;
      group.classList.add("settled");
    });
  }

  /** With another width, the groups have other heights. */
  #onResize() {
    const width = this.#root.clientWidth;
    if (width === this.#width) return;
    this.#width = width;
    for (const group of this.#root.children) unsettle(group);
    requestAnimationFrame(() => this.#settle());
  }
}

function unsettle(group) {
  group.classList.remove("settled");
}

/** The element after `one`, in the same group or in the next one. */
function after(one) {
  return one.nextElementSibling ?? one.parentElement.nextElementSibling?.firstElementChild ?? null;
}
