/** The chat page: connects its parts, and opens and closes conversations. */

import { ChatStream, reconnectDelay } from "../chatstream.js";
import { Composer, uniqueKey } from "./composer.js";
import { beginning, ConversationList, ConversationsAPI, titleOf } from "./conversations.js";
import { DeveloperView } from "./developer.js";
import { byId, composes } from "./dom.js";
import { Drafts } from "./drafts.js";
import { json, markdown, save } from "./export.js";
import { facts } from "./facts.js";
import { highlight, places } from "./marks.js";
import { Menu } from "./menu.js";
import { MessagesView } from "./messages.js";
import { ModelMenu } from "./models.js";
import { name as pageName, showOwnPage } from "./own.js";
import { copyText } from "./prose.js";
import { Search } from "./search.js";
import { Tabs } from "./tabs.js";
import { Token } from "./token.js";
import { Undo } from "./undo.js";
import { t, translatePage } from "./words.js";

const STATES = {
  connecting: "Connecting…",
  open: "Connected",
  reconnecting: "Reconnecting…",
  closed: "Not connected",
  offline: "Offline",
  resting: "Paused", // the stream is closed, to leave connections to other tabs
};
const THEMES = ["auto", "light", "dark"];
const NARROW = "(max-width: 48rem)"; // as in page.css
const LOOK = 10_000; // ms between two reloads of the list on a visible page, for changes made on other devices
const INSTRUCTED = "new/instructed"; // name of the draft with a new conversation's instructions
const TITLE = 60; // length of a title, in characters: slightly more than a line of the list shows

const baseUrl = new URL(".", document.baseURI).href.replace(/\/$/, "");
const token = new Token(accepts);
const api = new ConversationsAPI(baseUrl, (options) => token.get(options));

let chat = null; // the `ChatStream` of the open conversation; null for a new one
let visit = 0; // counts what was opened: conversations and new ones
let conversation = null; // the server's data of the open conversation
let instructions = null; // system prompt for a new conversation, until it is created
let chosen; // the model that was chosen while the conversation was loaded; undefined: none
let seeking = null; // promise of a search in messages that are not shown
let lookFor = ""; // search words that led to this conversation: marked once its messages are there
let dropper = new AbortController(); // AbortController that cuts the stream's connections

const drafts = new Drafts();
const composer = new Composer({ send, stop, lastQuestion }, drafts);
const messages = new MessagesView({ regenerate, goOn, askAnew, edit: (question) => composer.edit(question), takeBack, show, rate, decide, answer });
const list = new ConversationList(api, { open: (id) => open(id), rename, remove, found: (...all) => search.show(...all) });
const search = new Search({
  search: (text) => list.search(text).then(showFound, (error) => search.fail(t(error.message))),
  first: () => list.openFirst(),
  down: () => list.focus(),
  leave: () => composer.focus(),
});
const chatMenu = new Menu(byId("chat-menu"), () => byId("open-chat-menu"));
const otherTabs = new BroadcastChannel("chatstream.list"); // a message here means: reload the list
const developer = new DeveloperView({ drop, changeModel });
const modelMenu = new ModelMenu({ changeModel });
const undo = new Undo();
const tabs = new Tabs(() => showState());

// Conversations --------------------------------------------------------------------------------------------------------

/** Close the open conversation, and show an empty page for a new one. `replace`: "back" must not lead to the left one. */
function openNew({ push = true, replace = false } = {}) {
  leave();
  keepInstructions(null);
  if (replace) history.replaceState(null, "", location.pathname);
  else if (push) history.pushState(null, "", location.pathname);
  byId("empty").hidden = false;
  showTitle(t("New chat"));
  composer.place = "new";
  composer.focus();
}

function leave() {
  visit++;
  tabs.open(null);
  chat?.disconnect();
  chat = conversation = null;
  chosen = undefined;
  list.mark(null);
  messages.clear();
  developer.clear();
  showModel(null);
  composer.notice(null);
  composer.busy = false;
  byId("older-messages").hidden = true;
  showState();
  showSidebar(false);
}

function stream(id) {
  return new ChatStream({ background: true, baseUrl, conversationId: id, token: (options) => token.get(options), fetch: droppable });
}

/** Open a conversation: load its history, then stream from its end. Returns the `ChatStream`. */
async function open(id, { push = true } = {}) {
  leave();
  if (push) history.pushState(null, "", `?conversation=${encodeURIComponent(id)}`);
  byId("empty").hidden = true;
  composer.place = id;
  list.mark(id);
  lookFor = list.sought;
  const opened = stream(id);
  chat = opened;
  opened.on("messages", () => onMessages(opened));
  opened.on("state", () => opened === chat && onState());
  opened.on("event", (event, place) => opened === chat && onEvent(event, place));
  opened.on("error", (error) => opened === chat && onError(error));
  showState("connecting");
  for (let attempt = 1; opened === chat; attempt++) {
    try {
      const [about] = await Promise.all([api.get(id), opened.history()]);
      if (opened === chat) conversation = about;
      break;
    } catch (error) {
      if (opened !== chat) break;
      if (!error.retryable) {
        onError(error);
        break;
      }
      showState("reconnecting");
      await new Promise((resolve) => setTimeout(resolve, reconnectDelay(attempt, 1_000)));
    }
  }
  if (opened === chat) {
    showTitle(titleOf(conversation));
    if (chosen === undefined) showModel(conversation.model);
    else changeModel(chosen);
    tabs.open(opened);
  } // else another conversation was opened meanwhile
  return opened;
}

async function send(text, key, edited) {
  if (edited) {
    tabs.use();
    // If the running answer comes after the edited message, it is outdated: interrupt it. Otherwise wait for its end.
    const from = chat;
    const running = from.messages.findLastIndex(({ streaming }) => streaming);
    const outdated = running > from.messages.findIndex(({ id, siblings = [id] }) => siblings.includes(edited));
    await from.edit(edited, text, { clientMessageId: key, ifBusy: outdated ? "interrupt" : "queue" });
    if (from === chat) messages.toEnd();
    return;
  }
  const to = chat ?? (await begin(text, key)); // kept: the reader may open another conversation meanwhile
  tabs.use();
  await to.send(text, { clientMessageId: key, ifBusy: "queue" });
  if (to === chat) messages.toEnd();
  else refreshList({ changed: true }); // the reader is elsewhere
}

/**
 * Create a conversation with the id `id`, so that a repeated request creates no second one. Open it, unless the reader
 * has gone elsewhere meanwhile. Returns its `ChatStream`.
 */
async function begin(text, id) {
  const from = visit;
  const title = beginning(text.trim().split("\n")[0], TITLE);
  const more = { ...(facts.titles && { autoTitle: true }), ...(instructions && { systemPrompt: instructions }) };
  await api.create({ id, title, model: developer.model, ...more }).catch((error) => {
    if (error.status !== 409) throw error; // 409: an earlier try has created it, but the response was lost
  });
  drafts.setHere(INSTRUCTED, null);
  return from === visit ? open(id) : stream(id);
}

async function stop() {
  await chat.stop().catch((error) => {
    if (error.status !== 409) composer.notice(error.message, { passes: error.retryable }); // 409: already ended
  });
}

async function regenerate() {
  composer.notice(null);
  await chat.regenerate().catch((error) => composer.notice(error.message, { passes: error.retryable }));
  byId("scroller").focus(); // the button that was pressed has gone
}

async function goOn() {
  composer.notice(null);
  await chat.continueAnswer().catch((error) => composer.notice(error.message, { passes: error.retryable }));
  byId("scroller").focus(); // the button that was pressed has gone
}

/** Withdraw a queued question. */
async function takeBack(question) {
  composer.notice(null);
  const from = chat;
  await from.takeBack(question.id).then(
    () => from === chat && composer.returned(question),
    (error) => composer.notice(error.message, { passes: error.retryable }),
  );
}

/** Show another version of a message, with the branch after it. */
async function show(id, step) {
  const shown = chat;
  await shown.showBranch(id).catch((error) => composer.notice(error.message, { passes: error.retryable }));
  if (shown === chat) messages.focusVersion(id, step);
}

/** Send the decision about a tool call. Returns false if that failed and can be tried again. */
async function decide(toolCallId, decision) {
  return sent(() => chat.decide(toolCallId, decision));
}

/** Send the answer to a tool's question, like `decide`. */
async function answer(toolCallId, said) {
  return sent(() => chat.answerQuestion(toolCallId, said));
}

async function sent(send) {
  try {
    await send();
    return true;
  } catch (error) {
    composer.notice(error.message, { passes: error.retryable });
    return false;
  }
}

async function rate(id, rating) {
  await chat.rate(id, rating).catch((error) => composer.notice(error.message, { passes: error.retryable }));
}

/** The last question, or undefined. */
function lastQuestion() {
  return chat?.messages.findLast(({ role }) => role === "user");
}

/** Ask the last question in a new conversation, since this one has become too long. */
function askAnew() {
  const question = lastQuestion();
  openNew();
  composer.use(question.content);
}

async function rename({ id, title }) {
  const name = await ask({ title: t("Rename the conversation"), ok: t("Rename"), text: title ?? "" });
  list.focusRow(id, "button"); // the list may have been drawn again behind the dialog
  if (name === null) return;
  const changed = await api.change(id, { title: name.trim() || null }).catch((error) => composer.notice(error.message));
  if (changed && conversation?.id === id) {
    conversation = changed;
    showTitle(titleOf(changed));
  }
  await refreshList({ changed: true });
}

/** Hide the conversation at once, and delete it on the server when the time to undo is over. */
function remove(about, { byKeyboard = false } = {}) {
  const { id } = about;
  const wasOpen = list.current === id;
  if (wasOpen) openNew({ replace: true });
  else byId("new-chat").focus(); // the focused row is removed
  list.hide(id, true);
  const actions = {
    async commit({ closing }) {
      if (closing) {
        composer.forget(id);
        return void api.deleteOnClosing(id);
      }
      const refused = await api.delete(id).catch((error) => error.status !== 404 && error);
      if (refused) {
        list.hide(id, false);
        const problem = t("“{title}” could not be deleted. {problem}", { title: titleOf(about), problem: t(refused.message) });
        composer.notice(problem, { passes: refused.retryable });
      } else composer.forget(id);
      await refreshList({ changed: true });
    },
    revert() {
      list.hide(id, false);
      if (wasOpen && chat === null) open(id);
      list.focusRow(id); // the button that was pressed has gone
    },
  };
  // From the list's end the button is many steps away.
  undo.offer("“{title}” is deleted.", titleOf(about), actions, { focus: byKeyboard });
}

function showModel(model) {
  developer.model = modelMenu.model = model;
}

async function changeModel(model) {
  showModel(model);
  if (conversation === null) {
    if (chat) chosen = model; // changed once the conversation is loaded
    return; // a new conversation is created with this model
  }
  const { id } = conversation;
  await change(id, { model }).catch((error) => {
    composer.notice(error.message);
    if (conversation?.id === id) showModel(conversation.model);
  });
}

/** Change the open conversation on the server. The reader may open another one meanwhile. */
async function change(id, changes) {
  const changed = await api.change(id, changes);
  if (conversation?.id === id) conversation = changed;
}

/** Whether the server accepts this token. */
async function accepts(candidate) {
  const { status } = await fetch(`${baseUrl}/api/v1/chat/conversations?limit=1`, {
    headers: { Authorization: `Bearer ${candidate}` },
  }).catch(() => {
    throw new Error(t("The server cannot be reached. Try again."));
  });
  return status !== 401;
}

/** Reload the list. `changed`: this tab has changed it, so other tabs are asked to reload it, too. */
function refreshList({ changed = false } = {}) {
  return list.load().then(
    () => {
      token.accepted();
      const named = conversation && list.about(conversation.id);
      if (named && named.title !== conversation.title) {
        conversation = { ...conversation, title: named.title };
        showTitle(titleOf(conversation));
        changed = true;
      }
      if (changed) otherTabs.postMessage({});
    },
    () => {},
  ); // if that fails, the old list stays
}

/** Reload the list regularly while this tab is visible. */
function lookAtList() {
  setTimeout(
    () => (document.visibilityState === "visible" ? refreshList() : Promise.resolve()).finally(lookAtList),
    LOOK * (1 + Math.random() / 4), // random, so that tabs opened at the same time do not reload together
  );
}

// Actions of the open conversation ------------------------------------------------------------------------------------

/** The shown branch as Markdown. */
async function whole() {
  const [about, all] = await Promise.all([api.get(conversation.id), api.messages(conversation.id, { leaf: chat.lookedAt })]);
  return { about, text: markdown({ ...about, title: titleOf(about), messages: all }) };
}

async function saveAsMarkdown() {
  chatMenu.close();
  const { about, text } = await whole();
  save(titleOf(about), "md", "text/markdown", text);
}

async function saveAsJSON() {
  chatMenu.close();
  const { id } = conversation;
  const [about, all] = await Promise.all([api.get(id), api.messages(id, { branches: "all" })]);
  save(titleOf(about), "json", "application/json", json(about, all));
}

function openChatMenu() {
  byId("show-instructions").hidden = !facts.userPrompts || (chat !== null && conversation === null); // it is being loaded
  for (const name of ["copy-all", "save-markdown", "save-json"]) byId(name).hidden = conversation === null;
  chatMenu.open(byId("open-chat-menu"));
}

function askForInstructions() {
  chatMenu.close();
  const dialog = byId("instructions");
  const field = byId("instructions-text");
  const [about, from] = [conversation, visit];
  const id = about?.id ?? "new";
  const name = `${id}/instructions`;
  const unsaved = drafts.get(name);
  field.value = unsaved ?? (about ? about.systemPrompt : instructions) ?? "";
  field.oninput = () => drafts.setHere(name, field.value);
  dialog.returnValue = "";
  dialog.onclose = async () => {
    if (dialog.returnValue !== "ok") {
      drafts.setHere(name, unsaved);
      return;
    }
    const systemPrompt = field.value.trim() || null;
    drafts.setHere(name, systemPrompt ?? "");
    if (about === null && from !== visit) return; // the reader has left the new chat meanwhile: kept for the next one
    try {
      if (about === null) keepInstructions(systemPrompt);
      else await change(id, { systemPrompt });
      drafts.setHere(name, null);
    } catch (error) {
      composer.notice(t("The instructions were not saved. {problem}", { problem: t(error.message) }));
    }
  };
  dialog.showModal();
}

/** Set the instructions of a new conversation. They are also kept for a reload or a sign-in. */
function keepInstructions(text) {
  instructions = text;
  drafts.setHere(INSTRUCTED, text);
}

// Events of the stream ------------------------------------------------------------------------------------------------

function onMessages(from) {
  if (from !== chat) return;
  messages.show(chat.messages, chat);
  composer.busy = chat.streaming;
  tabs.consider();
  // Not `hidden = …`, which counts as a change of the page even if the value is the same.
  byId("empty").toggleAttribute("hidden", chat.messages.length > 0);
  if (list.sought) messages.whenDrawn(showFound);
}

function onState() {
  tabs.consider();
  showState();
}

function onEvent(event, place) {
  developer.onEvent(event, place);
  if (place.repeated) return;
  if (event.type === "user_message") refreshList({ changed: true });
  if (event.type === "llm_complete") refreshList({ changed: true });
  if (event.type === "title") onTitle(event.title);
  if (event.type === "llm_complete" || (event.type === "error" && event.messageId)) messages.announce(event.messageId);
}

/** Handle a new title of the open conversation: from the model after the first answer, or from another device. */
function onTitle(title) {
  if (!conversation || title === conversation.title) return;
  conversation = { ...conversation, title };
  showTitle(titleOf(conversation));
  refreshList({ changed: true });
}

/** Mark the search words in the messages, and scroll to the first match once. */
function showFound() {
  const found = highlight(byId("messages"), list.sought && chat ? list.sought : "");
  if (!lookFor) return;
  if (found) {
    messages.goTo(found);
    lookFor = "";
  } else if (chat?.messages.length && !seeking) {
    seeking = seek(chat, lookFor)
      .then((isShown) => isShown || (lookFor = ""), () => (lookFor = "")) // an error: show it unmarked
      .finally(() => (seeking = null));
  }
}

/** The shown messages do not contain the search words: show the branch or the older messages that do. False if no
 * message contains them; then the title does. */
async function seek(from, sought) {
  const newer = []; // newest first
  for await (const page of api.pages(list.current, { branches: "all" })) {
    for (const message of page.toReversed()) {
      newer.push(message);
      if (from !== chat || sought !== lookFor) return false;
      if (places(message.content, sought).length === 0) continue;
      if (isOnBranch(from.messages.at(-1).id, newer)) {
        while (from.hasEarlier && !from.messages.some(({ id }) => id === message.id)) await from.earlier();
      } else {
        await from.lookAt(newestBelow(newer)); // the others go on to see the present branch
      }
      messages.whenDrawn(showFound);
      return true;
    }
  }
  return false;
}

/** Whether the oldest of these messages, which come newest first, is on the branch that ends with the message `leaf`. */
function isOnBranch(leaf, newer) {
  const oldest = newer.at(-1).id;
  let id = leaf;
  for (const [index, message] of newer.entries()) {
    if (message.id !== id) continue;
    if (id === oldest) return true;
    id = before(newer, index);
  }
  return false;
}

/** The newest message below the oldest of these messages, which come newest first; itself if there is none. */
function newestBelow(newer) {
  const below = [newer.at(-1).id];
  for (let index = newer.length - 2; index >= 0; index--) {
    if (below.includes(before(newer, index))) below.push(newer[index].id);
  }
  return below.at(-1);
}

/** The id of the message that a message continues; null if there is none. */
function before(newer, index) {
  const { role, parent, replyTo } = newer[index];
  if (role !== "user") return replyTo;
  return parent === undefined ? newer[index + 1].id : parent; // without `parent` it is the message before it
}

function onError(error) {
  developer.onError(error);
  if (error.messageId || error.retryable) return; // shown under its answer, or temporary
  const isGone = error.status === 404 || error.code === "conversation_deleted";
  if (isGone) composer.gone();
  openNew({ replace: true });
  composer.notice(isGone ? t("That conversation does not exist, or not any more.") : error.message);
  refreshList();
}

function showState(state = chat?.state ?? "idle") {
  if (state === "open") composer.passed();
  const online = tabs.resting ? "resting" : state;
  const shown = state !== "idle" && !navigator.onLine ? "offline" : online;
  byId("state").dataset.state = shown;
  byId("state").textContent = t(STATES[shown] ?? "");
  developer.onState(shown);
}

function showTitle(title) {
  byId("title").textContent = title;
  document.title = `${title} · ${pageName}`;
}

/** `fetch` for the stream; the developer view can cut its connection as a network failure would. */
function droppable(url, options) {
  return fetch(url, { ...options, signal: AbortSignal.any([options.signal, dropper.signal]) });
}

function drop() {
  dropper.abort();
  dropper = new AbortController();
}

// The frame ------------------------------------------------------------------------------------------------------------

function showSidebar(shown) {
  const sidebar = byId("sidebar");
  if (sidebar.classList.contains("shown") === shown) return;
  sidebar.classList.toggle("shown", shown);
  byId("scrim").hidden = !shown;
  for (const behind of [...byId("main").children, byId("developer")]) behind.inert = shown;
  byId("open-sidebar").ariaExpanded = String(shown);
  byId(shown ? "close-sidebar" : "open-sidebar").focus();
}

function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").lastElementChild.textContent = t(`Theme: ${theme}`);
}

/** Ask for a text in a dialog. Returns it, or null if the user cancels. */
function ask({ title, ok, text }) {
  const dialog = byId("ask");
  const field = byId("ask-text");
  byId("ask-title").textContent = title;
  byId("ask-ok").textContent = ok;
  field.value = text;
  dialog.returnValue = "";
  dialog.showModal();
  field.select(); // typing replaces the whole text
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "ok" ? field.value : null);
  });
}

async function route() {
  const id = new URLSearchParams(location.search).get("conversation");
  if (id === null) openNew({ push: false });
  else if (list.hides(id)) openNew({ replace: true });
  else await open(id, { push: false });
}

/** Open what was open before a reload or a sign-in. */
async function start() {
  const instructed = drafts.get(INSTRUCTED);
  await route();
  if (chat === null) keepInstructions(instructed);
  const isReady = chat === null || conversation !== null;
  if (isReady && drafts.get(`${conversation?.id ?? "new"}/instructions`) !== null) askForInstructions(); // they were being written
}

byId("new-chat").onclick = () => openNew();
byId("ask-cancel").onclick = () => byId("ask").close();
byId("sign-out").onclick = () => token.forget();
byId("open-sidebar").onclick = () => showSidebar(true);
byId("close-sidebar").onclick = byId("scrim").onclick = () => showSidebar(false);
byId("older-messages").onclick = () => chat.earlier().catch((error) => composer.notice(error.message));
byId("examples").onclick = ({ target }) => target.localName === "button" && composer.use(target.textContent);
byId("open-chat-menu").onclick = openChatMenu;
byId("show-instructions").onclick = askForInstructions;
byId("instructions-cancel").onclick = () => byId("instructions").close();
byId("copy-all").onclick = async ({ currentTarget }) => {
  await whole().then(({ text }) => copyText(text, currentTarget), (error) => composer.notice(error.message));
};
byId("save-markdown").onclick = () => saveAsMarkdown().catch((error) => composer.notice(error.message));
byId("save-json").onclick = () => saveAsJSON().catch((error) => composer.notice(error.message));
otherTabs.onmessage = () => refreshList();
byId("theme").onclick = () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  localStorage.setItem("chatstream.theme", next);
  showTheme(next);
};
document.querySelector(".skip").onclick = (click) => {
  click.preventDefault(); // the link must not change the address, which names the conversation
  composer.focus();
};
byId("show-shortcuts").onclick = () => byId("shortcuts").showModal();
addEventListener("keydown", (press) => {
  if (composes(press) || document.querySelector("dialog[open]")) return;
  const { key, ctrlKey, metaKey, altKey, shiftKey } = press;
  if ((ctrlKey || metaKey) && shiftKey && key.toLowerCase() === "o") {
    press.preventDefault(); // in browsers, this key opens the bookmarks
    openNew();
  } else if ((ctrlKey || metaKey) && !shiftKey && key.toLowerCase() === "k") {
    press.preventDefault(); // in browsers, this key opens the search
    if (matchMedia(NARROW).matches) showSidebar(true);
    search.focus();
  } else if ((ctrlKey || metaKey) && !shiftKey && !altKey && key.toLowerCase() === "z" && !press.target.closest?.("input, textarea")) {
    if (undo.now()) press.preventDefault();
  } else if (key === "?" && !ctrlKey && !metaKey && !altKey && !press.target.closest?.("input, textarea")) {
    byId("shortcuts").showModal();
  }
});
addEventListener("keydown", (press) => {
  if (press.key !== "Escape" || composes(press) || press.defaultPrevented || document.querySelector("dialog[open], :popover-open")) return;
  if (byId("sidebar").classList.contains("shown")) showSidebar(false);
  else if (chat?.streaming) byId("stop").click();
});
matchMedia(NARROW).onchange = () => showSidebar(false); // a phone was turned
addEventListener("popstate", route);
addEventListener("online", () => showState());
addEventListener("offline", () => showState());
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && refreshList());

translatePage();
showOwnPage();
showTheme(localStorage.getItem("chatstream.theme") ?? "auto");
await token.get(); // the user is asked for it if the address has none
byId("chat").hidden = false;
modelMenu.load(baseUrl, (options) => token.get(options)).catch(() => {}); // if this fails, the default model answers
refreshList();
lookAtList();
start();
