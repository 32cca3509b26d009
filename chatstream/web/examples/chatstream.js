// A chat without a framework, for a page with
//   <main data-base-url="https://your.server" data-conversation-id="123" data-token="…">
//     <ol></ol> <p role="status"></p> <form><input> <button>Send</button> <button type="button">Stop</button></form>
//   </main>
// The conversation was created: POST /api/v1/chat/conversations {"id": "123"}

import { ChatStream } from "chatstream"; // or from "https://your.server/chatstream.js": the server has it, too

const main = document.querySelector("main");
const { baseUrl, conversationId, token } = main.dataset;

const chat = new ChatStream({ baseUrl, conversationId, token }); // or token: ({ refresh }) => (refresh ? newToken() : token)
chat.on("messages", showMessages); // all messages of the conversation so far
chat.on("state", showState); // connecting | open | reconnecting | closed
chat.connect({ history: true }); // loads the history, then streams; retries both by itself

main.querySelector("form").onsubmit = async (event) => {
  event.preventDefault();
  const field = main.querySelector("input");
  try {
    await chat.send(field.value, { ifBusy: "interrupt" }); // under a key: stored once, however often it has to be sent
    field.value = "";
  } catch (error) {
    showState(error.fields?.content ?? error.message);
  }
};
main.querySelector("button[type=button]").onclick = () => chat.stop().catch((error) => showState(error.message));

function showMessages(messages) {
  const items = messages.map(({ role, content }) => {
    return Object.assign(document.createElement("li"), { className: role, textContent: content });
  });
  main.querySelector("ol").replaceChildren(...items);
}

function showState(state) {
  main.querySelector("[role=status]").textContent = chat.error ? `${state}: ${chat.error.message}` : state;
}
