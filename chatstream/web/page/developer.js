/** Developer view: the events as they come, the cursor, and a button that cuts the connection. */

import { byId, element, sparing, Tail } from "./dom.js";
import { facts } from "./facts.js";

const KEPT = 200; // number of newest events that are shown: enough to see how a stream resumes
const GIST = { // by type of event: its summary in one line
  connected: ({ resumed }) => (resumed ? "resumed" : "new"),
  user_message: ({ content }) => JSON.stringify(content),
  llm_chunk: ({ content }) => JSON.stringify(content),
  llm_complete: ({ status, finishReason }) => `${status}, ${finishReason ?? "no reason"}`,
  data: ({ kind, id, data }) => `${kind} ${id}: ${JSON.stringify(data)}`,
  system: ({ message, metadata }) => `${message}: ${JSON.stringify(metadata)}`,
  error: ({ error }) => error,
};

export class DeveloperView {
  #events = [];
  #connections = 0;
  #tail = new Tail(byId("events"));
  #draw = sparing(() => this.#redraw());

  /** `actions`: `drop()`, `changeModel(name or null)`. */
  constructor({ drop, changeModel }) {
    byId("toggle-developer").onclick = () => this.#open(byId("developer").hidden);
    byId("close-developer").onclick = () => {
      this.#open(false);
      byId("toggle-developer").focus();
    };
    byId("drop").onclick = () => {
      this.#note("lost", { gist: "You dropped the connection." });
      drop();
    };
    byId("clear-events").onclick = () => this.clear();
    const faults = Object.entries(facts.demoModels);
    byId("models").append(...faults.map(([value, textContent]) => element("option", { value, textContent })));
    byId("model-note").hidden = faults.length === 0;
    byId("model").onchange = ({ target }) => changeModel(target.value.trim() || null);
    this.#open(sessionStorage.getItem("chatstream.developer") === "open");
  }

  /** Remove the events, for another conversation. */
  clear() {
    this.#events = [];
    this.#draw();
  }

  set model(name) {
    byId("model").value = name ?? "";
  }

  get model() {
    return byId("model").value.trim() || null;
  }

  onState(state) {
    byId("fact-state").textContent = state;
    byId("drop").disabled = state !== "open";
    this.#draw();
  }

  onError({ message }) {
    this.#note("lost", { gist: message });
  }

  onEvent(event, { cursor, repeated }) {
    if (event.type === "connected") byId("fact-connections").textContent = String(++this.#connections);
    byId("fact-cursor").textContent = cursor ?? "–";
    const gist = GIST[event.type]?.(event) ?? "";
    this.#note(event.type, { gist: repeated ? `known: ${gist}` : gist, whole: JSON.stringify(event, null, 1) });
  }

  #note(type, { gist, whole = gist }) {
    this.#events.push({ type, gist, whole });
    if (this.#events.length > KEPT) this.#events.shift();
    this.#draw();
  }

  #redraw() {
    if (byId("developer").hidden) return;
    const list = byId("events");
    const rows = new Map([...list.children].map((row) => [row.event, row]));
    list.replaceChildren(...this.#events.map((event) => rows.get(event) ?? line(event)));
    this.#tail.follow();
  }

  #open(open) {
    byId("developer").hidden = !open;
    byId("toggle-developer").ariaPressed = String(open);
    sessionStorage.setItem("chatstream.developer", open ? "open" : "");
    this.#draw();
  }
}

function line(event) {
  const { type, gist, whole } = event;
  const summary = element("summary", {}, element("b", {}, type), element("span", {}, gist));
  const row = element("li", {}, element("details", {}, summary, element("pre", {}, whole)));
  row.dataset.type = type;
  row.event = event;
  return row;
}
