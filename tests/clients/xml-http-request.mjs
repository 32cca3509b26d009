// The part of React Native's XMLHttpRequest that react-native-sse uses, built on Node's http: real requests, and text
// while it arrives. (Of npm's ones, xmlhttprequest-ssl 2 and 4 were tried: they give no text before the end.)
import http from "node:http";

export class XMLHttpRequest {
  static LOADING = 3;
  static DONE = 4;
  readyState = 0;
  status = 0;
  responseText = "";
  onreadystatechange() {}
  onerror() {}

  open(method, url) {
    this.#become(1);
    this.#request = http.request(url, { method });
  }

  setRequestHeader(name, value) {
    this.#request.setHeader(name, value);
  }

  send(body) {
    this.#request.on("error", () => this.readyState < 2 && this.#fail());
    this.#request.on("response", (response) => {
      this.status = response.statusCode;
      this.#become(2);
      response.setEncoding("utf8");
      response.on("data", (text) => {
        this.responseText += text;
        this.#become(3);
      });
      response.on("end", () => this.#become(4));
      // If a stream breaks, React Native keeps the status, and replaces the response's text by the error's.
      response.on("error", (error) => {
        this.responseText = error.message;
        this.#become(4);
        if (!this.#aborted) this.onerror();
      });
    });
    this.#request.end(body);
  }

  abort() {
    this.#aborted = true;
    this.#request.destroy();
  }

  #request;
  #aborted = false;

  #become(state) {
    if (this.#aborted) return;
    this.readyState = state;
    this.onreadystatechange();
  }

  #fail() {
    if (this.#aborted) return;
    this.status = 0;
    this.#become(4);
    this.onerror();
  }
}
