/** Cards for an answer's tool calls: each shows the call's arguments, state and result, and asks for what it waits for. */

import { element } from "./dom.js";
import { form } from "./questions.js";
import { language, t } from "./words.js";

const ROWS = 20; // maximum number of rows that are shown of the arguments and of the result
const STATES = {
  awaiting_approval: "Waits for you",
  approved: "Approved",
  denied: "Denied",
  expired: "Nobody agreed in time",
  awaiting_client: "Waits for the app",
  awaiting_input: "Waits for you",
  answered: "Running…",
  running: "Running…",
  done: "Done",
  failed: "Failed",
  unknown: "Nobody knows whether it was carried out",
};

const ASKS = ["awaiting_approval", "awaiting_input"]; // the states in which the user is asked something

export class Calls {
  root = element("div", { className: "calls" });
  #cards = new Map(); // by the call's id: {key, root}
  #actions;

  /** `actions`: `decide(toolCallId, decision)`, `answer(toolCallId, answer)` and `announce(text)`. */
  constructor(actions) {
    this.#actions = actions;
  }

  /** Show these calls. An unchanged card is not drawn again, so that it keeps its focus. What is unfolded stays so. */
  show(calls) {
    for (const call of calls) {
      const known = this.#cards.get(call.toolCallId);
      const key = JSON.stringify(call);
      if (known?.key === key) continue;
      const root = this.#card(call, known?.root.contains(document.activeElement));
      if (known?.root.querySelector("details")?.open) root.querySelector("details")?.setAttribute("open", "");
      if (known) known.root.replaceWith(root);
      else this.root.append(root);
      this.#cards.set(call.toolCallId, { key, root });
      if (root.dataset.focused) root.focus();
      if (ASKS.includes(call.state)) this.#actions.announce(question(call));
    }
  }

  #card(call, focused) {
    const state = call.failed && call.state === "done" ? "failed" : call.state;
    const id = `call-${call.toolCallId}`;
    const title = element("h3", { id }, words(call.name), element("span", { className: "call-state" }, STATES[state] ? t(STATES[state]) : ""));
    const root = element("section", { className: `card call ${state ?? "ready"}`, tabIndex: -1 }, title);
    root.setAttribute("aria-labelledby", id);
    if (focused) root.dataset.focused = "yes"; // keep the focus on the card after a decision
    if (ASKS.includes(state)) root.append(...this.#asking(call, root));
    else root.append(...folded(t("Details"), call));
    if (call.message && !ASKS.includes(state)) root.append(element("p", { dir: "auto" }, call.message));
    return root;
  }

  #asking(call, root) {
    const buttons = [];
    const say = async (said) => {
      root.focus(); // a disabled button loses the focus
      for (const one of buttons) one.disabled = true;
      if (!(await said())) for (const one of buttons) one.disabled = false;
    };
    const make = (text, said, type = "button") => {
      const onclick = said && (() => say(said));
      buttons.push(element("button", { type, className: "small-button", ...(onclick && { onclick }) }, t(text)));
    };
    const { toolCallId, question: asked } = call;
    const until = call.expiresAt && new Date(call.expiresAt);
    const time = until?.toLocaleString(language, { dateStyle: "short", timeStyle: "short" });
    const foot = () => element("div", { className: "call-buttons" }, ...buttons, ...(until ? [element("small", {}, t("Until {time}", { time }))] : []));
    const words = element("p", { dir: "auto" }, question(call));
    if (call.state === "awaiting_input") {
      const answer = (action, content) => this.#actions.answer(toolCallId, { question: asked.id, action, content });
      make("Send", null, "submit");
      make("Decline", () => answer("decline"));
      return [words, form(asked, foot(), (content) => say(() => answer("accept", content)))];
    }
    make("Approve", () => this.#actions.decide(toolCallId, "approve"));
    make("Deny", () => this.#actions.decide(toolCallId, "deny"));
    return [words, table(parsed(call.arguments)), foot()];
  }
}

/** The question to the user: the tool's own text if it has one. */
function question({ name, message, state }) {
  if (state === "awaiting_input") return message || t("“{name}” asks you something.", { name: words(name) });
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
