/** The menu of models, shown where there is a choice. The demo's, which play faults, are for the developer view. */

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

  /** Ask for the models. Rejects with a `ChatError`. */
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

  /** Show the model of a conversation; one that is gone is answered by the default. */
  set model(name) {
    const known = [...this.#menu.options].some(({ value }) => value === name);
    this.#menu.value = known ? name : this.#default;
  }
}
