/** The menu of models, shown if there are several. Not in the demo: its models are in the developer view. */

import { API } from "../client/api.js";
import { byId, element } from "./dom.js";
import { facts } from "./facts.js";

export class ModelMenu {
  #menu = byId("choose-model");
  #default = "";

  /** `changeModel(name or null)`: null is the server's default. */
  constructor({ changeModel }) {
    this.#menu.onchange = () => changeModel(this.#menu.value === this.#default ? null : this.#menu.value);
  }

  /** Load the list of models from the server. Rejects with a `ChatError`. */
  async load(baseUrl, token) {
    if (facts.demo) return;
    const { models } = await new API(`${baseUrl}/api/v1/chat`, token).call("GET", "/models");
    const chosen = this.#menu.value;
    this.#default = models.find((model) => model.default).name;
    const option = ({ name, description }) => element("option", { value: name, textContent: name, title: description });
    this.#menu.replaceChildren(...models.map(option));
    this.model = chosen || null;
    this.#menu.hidden = models.length < 2;
  }

  /** Show the model of a conversation. If it no longer exists, show the default model, which answers in its place. */
  set model(name) {
    const known = [...this.#menu.options].some(({ value }) => value === name);
    this.#menu.value = known ? name : this.#default;
  }
}
