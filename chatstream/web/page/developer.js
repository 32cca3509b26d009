/** Developer view: the events as they come, the cursor, and a button that cuts the connection. */

import { byId, composes, element, sparing, Tail } from "./dom.js";
import { facts } from "./facts.js";

const KEPT = 200; // number of newest events that are shown: enough to see how a stream resumes
const COVERS = "(max-width: 72rem)"; // as in page.css: the view covers a part of the chat
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
  #cursor = null;
  #tail = new Tail(byId("events"));
  #draw = sparing(() => this.#redraw());

  /** `actions`: `drop()`, `changeModel(name or null)`. */
  constructor({ drop, changeModel }) {
    byId("toggle-developer").onclick = () => {
      this.#open(byId("developer").hidden);
      if (matchMedia(COVERS).matches) byId("close-developer").focus(); // the pressed button is covered
    };
    byId("close-developer").onclick = () => this.#close();
    byId("developer").onkeydown = (press) => {
      if (press.key !== "Escape" || composes(press)) return;
      press.preventDefault(); // here Escape must not stop the answer
      this.#close();
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
    if (event.type === "connected") this.#connections++;
    this.#cursor = cursor;
    this.#note(event.type, { event, repeated });
  }

  #note(type, what) {
    this.#events.push({ type, ...what });
    if (this.#events.length > KEPT) this.#events.shift();
    if (!byId("developer").hidden) this.#draw();
  }

  #redraw() {
    if (byId("developer").hidden) return;
    byId("fact-connections").textContent = String(this.#connections);
    byId("fact-cursor").textContent = this.#cursor ?? "–";
    const list = byId("events");
    while (list.firstChild && list.firstChild.note !== this.#events[0]) list.firstChild.remove();
    list.append(...this.#events.slice(list.children.length).map(line));
    this.#tail.follow();
  }

  #close() {
    this.#open(false);
    byId("toggle-developer").focus();
  }

  #open(open) {
    byId("developer").hidden = !open;
    byId("toggle-developer").ariaPressed = String(open);
    sessionStorage.setItem("chatstream.developer", open ? "open" : "");
    this.#draw();
  }
}

/** Draw one line of the list. It is made only for events that are shown: a fast model sends hundreds per second. */
function line(note) {
  const { type, event, repeated } = note;
  const gist = event ? `${repeated ? "known: " : ""}${GIST[type]?.(event) ?? ""}` : note.gist;
  const whole = event ? JSON.stringify(event, null, 1) : gist;
  const summary = element("summary", {}, element("b", {}, type), element("span", {}, gist));
  const row = element("li", {}, element("details", {}, summary, element("pre", {}, whole)));
  row.dataset.type = type;
  row.note = note;
  return row;
}
