/** The controls under a message: other versions, actions, and rating. */

import { button, byId, element } from "./dom.js";
import { t } from "./words.js";

/** The controls under a question: an edit button, and its other versions. */
export function underQuestion(message, { edit, show }) {
  const label = t("Edit the question");
  return [
    button({ className: "quiet-button edit", name: "edit", label, onclick: () => edit(message) }),
    ...versions(message, show, { before: t("Question before the edit"), after: t("Question after the edit") }),
  ];
}

/** The controls that show other attempts at an answer. */
export function attempts(message, { show }) {
  return versions(message, show, { before: t("Earlier attempt"), after: t("Later attempt") });
}

/** Whether an answer was cut off and can be continued. */
export function isCut({ status, finishReason, content, error }) {
  const cut = ["stopped", "interrupted", "failed"].includes(status) || finishReason === "length";
  return cut && content !== "" && error?.error !== "answer_too_long";
}

/** Thumbs up and down, which rate the answer. Pressing the same one again removes the rating. */
export function thumbs({ id, rating }, { rate }) {
  const thumb = (value, name, label) => {
    const onclick = () => rate(id, rating === value ? null : value);
    const made = button({ className: "quiet-button thumb", name, label, onclick });
    made.ariaPressed = String(rating === value);
    return made;
  };
  const both = [thumb("up", "up", t("Good answer")), thumb("down", "down-thumb", t("Bad answer"))];
  return [element("span", { className: "thumbs" }, ...both)]; // one element, so that they are never on two lines
}

function versions({ id, siblings }, show, { before, after }) {
  if (!siblings) return [];
  const index = siblings.indexOf(id);
  const step = (name, label, to) => {
    const made = button({ className: "quiet-button", name, label, onclick: () => show(to, name) });
    made.disabled = to === undefined;
    made.dataset.step = name;
    return made;
  };
  const place = `${index + 1}/${siblings.length}`;
  const said = t("Version {number} of {all}", { number: index + 1, all: siblings.length });
  const box = element("span", { className: "versions", role: "group", ariaLabel: said });
  box.append(step("previous", before, siblings[index - 1]));
  box.append(element("span", { ariaHidden: "true" }, place));
  box.append(step("next", after, siblings[index + 1]));
  return [box];
}

/** After another version is shown, keep the focus where it was, and announce the version to screen readers. */
export function focusVersion(root, step) {
  const box = root.querySelector(".versions");
  if (!box) return;
  const same = box.querySelector(`[data-step=${step}]`);
  (same.disabled ? box.querySelector("button:not(:disabled)") : same)?.focus();
  byId("announcer").textContent = box.ariaLabel;
}
