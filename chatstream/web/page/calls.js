/** Cards for an answer's tool calls: each shows the call's arguments, state and result, and asks for approval. */

import { element } from "./dom.js";
import { language, t } from "./words.js";

const ROWS = 20; // maximum number of rows that are shown of the arguments and of the result
const STATES = {
  awaiting_approval: "Waits for you",
  approved: "Approved",
  denied: "Denied",
  expired: "Nobody agreed in time",
  awaiting_client: "Waits for the app",
  running: "Running…",
  done: "Done",
  failed: "Failed",
  unknown: "Nobody knows whether it was carried out",
};

export class Calls {
  root = element("div", { className: "calls" });
  #cards = new Map(); // by the call's id: {key, root}
  #actions;

  /** `actions`: `decide(toolCallId, decision)` and `announce(text)`. */
  constructor(actions) {
    this.#actions = actions;
  }

  /** Show these calls. An unchanged card is not drawn again, so that it keeps its focus and stays unfolded. */
  show(calls) {
    for (const call of calls) {
      const known = this.#cards.get(call.toolCallId);
      const key = JSON.stringify(call);
      if (known?.key === key) continue;
      const root = this.#card(call, known?.root.contains(document.activeElement));
      if (known) known.root.replaceWith(root);
      else this.root.append(root);
      this.#cards.set(call.toolCallId, { key, root });
      if (root.dataset.focused) root.focus();
      if (call.state === "awaiting_approval") this.#actions.announce(question(call));
    }
  }

  #card(call, focused) {
    const state = call.failed && call.state === "done" ? "failed" : call.state;
    const id = `call-${call.toolCallId}`;
    const title = element("h3", { id }, words(call.name), element("span", { className: "call-state" }, STATES[state] ? t(STATES[state]) : ""));
    const root = element("section", { className: `card call ${state ?? "ready"}`, tabIndex: -1 }, title);
    root.setAttribute("aria-labelledby", id);
    if (focused) root.dataset.focused = "yes"; // keep the focus on the card after a decision
    if (state === "awaiting_approval") root.append(...this.#asking(call, root));
    else root.append(...folded(t("Details"), call));
    if (call.message && state !== "awaiting_approval") root.append(element("p", { dir: "auto" }, call.message));
    return root;
  }

  #asking(call, root) {
    const decide = (decision) => async () => {
      root.focus(); // a disabled button loses the focus
      for (const one of buttons) one.disabled = true;
      if (!(await this.#actions.decide(call.toolCallId, decision))) for (const one of buttons) one.disabled = false;
    };
    const make = (name, text, decision) => element("button", { type: "button", className: name, onclick: decide(decision) }, t(text));
    const buttons = [make("small-button", "Approve", "approve"), make("small-button", "Deny", "deny")];
    const until = call.expiresAt && new Date(call.expiresAt);
    const time = until?.toLocaleString(language, { dateStyle: "short", timeStyle: "short" });
    return [
      element("p", { dir: "auto" }, question(call)),
      table(parsed(call.arguments)),
      element("div", { className: "call-buttons" }, ...buttons, ...(until ? [element("small", {}, t("Until {time}", { time }))] : [])),
    ];
  }
}

/** The question whether to approve the call: the tool's own text if it has one. */
function question({ name, message }) {
  return message ?? t("“{name}” will be carried out with these details, once, if you approve.", { name: words(name) });
}

function folded(title, { arguments: given, output }) {
  const known = parsed(given);
  if (output === undefined && isEmpty(known)) return [];
  const details = element("details", {}, element("summary", {}, title));
  if (!isEmpty(known)) details.append(table(known));
  if (output !== undefined) details.append(element("h4", {}, t("Result")), table(output));
  return [details];
}

/** Draw the names and values of an object as a table, or a single value. */
function table(value) {
  const text = (one) => (typeof one === "string" ? one : JSON.stringify(one));
  if (value === null || typeof value !== "object" || Array.isArray(value)) return element("p", { dir: "auto" }, text(value));
  const cells = Object.entries(value)
    .slice(0, ROWS)
    .flatMap(([name, one]) => [element("dt", { dir: "auto" }, words(name)), element("dd", { dir: "auto" }, text(one))]);
  return element("dl", {}, ...cells);
}

function isEmpty(value) {
  return value === "" || (typeof value === "object" && value !== null && Object.keys(value).length === 0);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text; // incomplete, or not JSON
  }
}

function words(name) {
  return name.replaceAll(/[_-]/g, " ");
}
