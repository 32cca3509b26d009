/** Translations of the page's texts. The key of a text is the English text itself. */

import { facts } from "./facts.js";

const GERMAN = {
  // The frame
  "Connecting…": "Verbindet …",
  Connected: "Verbunden",
  "Reconnecting…": "Verbindet wieder …",
  "Not connected": "Nicht verbunden",
  Offline: "Offline",
  Paused: "Pausiert",
  "New chat": "Neuer Chat",
  Conversations: "Unterhaltungen",
  "Close the list": "Liste schließen",
  "Show older chats": "Ältere Chats zeigen",
  "Sign out": "Abmelden",
  Shortcuts: "Tastenkürzel",
  "Theme: auto": "Design: auto",
  "Theme: light": "Design: hell",
  "Theme: dark": "Design: dunkel",
  "Skip to the message box": "Zum Nachrichtenfeld springen",
  "Developer view": "Entwickleransicht",
  "Conversation {id}": "Unterhaltung {id}",
  "That conversation does not exist, or not any more.": "Diese Unterhaltung gibt es nicht, oder nicht mehr.",
  "The server cannot be reached. Try again.": "Der Server ist nicht erreichbar. Versuchen Sie es noch einmal.",
  // The list
  "Options of {name}": "Optionen: {name}",
  "Options of the conversation": "Optionen der Unterhaltung",
  "Search chats": "Chats durchsuchen",
  "Found: {count}": "Gefunden: {count}",
  "Found: more than {count}": "Gefunden: mehr als {count}",
  "No chat has all of these words.": "Kein Chat enthält alle diese Wörter.",
  "Older chats are still being made ready: search again in a moment.":
    "Ältere Chats werden noch vorbereitet: Suchen Sie gleich noch einmal.",
  "An answer is being written": "Eine Antwort wird geschrieben",
  "Waits for you": "Wartet auf Sie",
  "Not read yet": "Noch nicht gelesen",
  "Options of this chat": "Optionen dieses Chats",
  "Instructions…": "Anweisungen …",
  "Instructions for this chat": "Anweisungen für diesen Chat",
  "The model gets this text before each answer. Empty: the server's own instructions.":
    "Das Modell erhält diesen Text vor jeder Antwort. Leer: die Anweisungen dieses Servers.",
  Save: "Speichern",
  "Copy everything": "Alles kopieren",
  "Save as Markdown": "Als Markdown speichern",
  "Save as JSON": "Als JSON speichern",
  Rename: "Umbenennen",
  Delete: "Löschen",
  Undo: "Rückgängig",
  "Rename the conversation": "Unterhaltung umbenennen",
  Model: "Modell",
  Title: "Titel",
  Cancel: "Abbrechen",
  Close: "Schließen",
  "“{title}” is deleted.": "„{title}“ ist gelöscht.",
  "“{title}” could not be deleted. {problem}": "„{title}“ konnte nicht gelöscht werden. {problem}",
  Today: "Heute",
  Yesterday: "Gestern",
  "Previous 7 days": "Letzte 7 Tage",
  "Previous 30 days": "Letzte 30 Tage",
  // Messages
  Messages: "Nachrichten",
  "Show earlier messages": "Frühere Nachrichten zeigen",
  "To the end": "Zum Ende",
  You: "Sie",
  Answer: "Antwort",
  "Answer:": "Antwort:",
  "Waiting for the model": "Wartet auf das Modell",
  "The model thinks": "Das Modell denkt nach",
  "Thinking…": "Denkt nach …",
  Thought: "Gedacht",
  "Thought for {seconds} s": "{seconds} s nachgedacht",
  "Earlier messages are no longer told to the model.": "Frühere Nachrichten werden dem Modell nicht mehr mitgegeben.",
  "Will be asked next": "Wird als Nächstes gefragt",
  "You stopped it": "Von Ihnen gestoppt",
  "The answer was interrupted": "Die Antwort wurde unterbrochen",
  "Cut off at the maximum length": "Bei der größten Länge abgeschnitten",
  "Stopped by the content filter": "Vom Inhaltsfilter gestoppt",
  "The model returned an empty answer": "Das Modell gab eine leere Antwort",
  "Try again": "Noch einmal",
  "Take back": "Zurücknehmen",
  "Take back the question": "Frage zurücknehmen",
  "This message does not wait any more: its answer has begun.":
    "Diese Nachricht wartet nicht mehr: Die Antwort darauf hat begonnen.",
  "Start a new chat with this message": "Neuen Chat mit dieser Nachricht beginnen",
  "Copy the answer": "Antwort kopieren",
  "Copy the code": "Code kopieren",
  Copy: "Kopieren",
  Copied: "Kopiert",
  "Not allowed": "Nicht erlaubt",
  "Regenerate the answer": "Antwort neu erzeugen",
  "Continue the answer": "Antwort fortsetzen",
  Continue: "Fortsetzen",
  "Edit the question": "Frage bearbeiten",
  "Question before the edit": "Frage vor der Bearbeitung",
  "Question after the edit": "Frage nach der Bearbeitung",
  "Earlier attempt": "Früherer Versuch",
  "Later attempt": "Späterer Versuch",
  "Version {number} of {all}": "Fassung {number} von {all}",
  "Good answer": "Gute Antwort",
  "Bad answer": "Schlechte Antwort",
  Regenerate: "Neu erzeugen",
  "{code} · request {id}": "{code} · Anfrage {id}",
  "{in} tokens in, {out} out": "{in} Token hinein, {out} heraus",
  "{in} tokens in, at least {out} out": "{in} Token hinein, mindestens {out} heraus",
  "Code, {language}": "Code, {language}",
  Approve: "Genehmigen",
  Deny: "Ablehnen",
  Approved: "Genehmigt",
  Denied: "Abgelehnt",
  "Nobody agreed in time": "Niemand hat rechtzeitig zugestimmt",
  "Waits for the app": "Wartet auf die App",
  "Running…": "Läuft …",
  Done: "Erledigt",
  Failed: "Fehlgeschlagen",
  "Nobody knows whether it was carried out": "Niemand weiß, ob es ausgeführt wurde",
  "“{name}” will be carried out with these details, once, if you approve.":
    "„{name}“ wird mit diesen Angaben einmal ausgeführt, wenn Sie es genehmigen.",
  "“{name}” asks you something.": "„{name}“ fragt Sie etwas.",
  Decline: "Ablehnen",
  "Until {time}": "Bis {time}",
  Details: "Einzelheiten",
  Result: "Ergebnis",
  Table: "Tabelle",
  Formula: "Formel",
  // The message box
  "Your message": "Ihre Nachricht",
  Send: "Senden",
  Stop: "Stopp",
  "Ask next": "Als Nächstes fragen",
  "You edit a question. The old one stays within reach.": "Sie bearbeiten eine Frage. Die alte bleibt erreichbar.",
  "Send again": "Noch einmal senden",
  "Send again in {time}": "Noch einmal senden in {time}",
  "Try again in {time}": "Noch einmal versuchen in {time}",
  "It was not sent. {problem}": "Nicht gesendet. {problem}",
  "It was not sent: {problem}.": "Nicht gesendet: {problem}.",
  "A message of another chat was not sent, and is a draft there. {problem}":
    "Eine Nachricht eines anderen Chats wurde nicht gesendet und steht dort als Entwurf. {problem}",
  "The instructions were not saved. {problem}": "Die Anweisungen wurden nicht gespeichert. {problem}",
  "{length} of {most} characters": "{length} von {most} Zeichen",
  "Enter sends, Shift + Enter makes a new line, Esc stops the answer.":
    "Enter sendet, Umschalt + Enter macht eine neue Zeile, Esc stoppt die Antwort.",
  "Demo: the answers are prepared. To connect a real model, set OPENAI_API_KEY (or OPENAI_BASE_URL) and OPENAI_MODEL.":
    "Demo: Die Antworten sind vorbereitet. Für ein echtes Modell setzen Sie OPENAI_API_KEY (oder OPENAI_BASE_URL) und OPENAI_MODEL.",
  "Keyboard shortcuts": "Tastenkürzel",
  "Send, also while an answer is being written": "Senden, auch während eine Antwort geschrieben wird",
  "New line": "Neue Zeile",
  "Stop the answer": "Antwort stoppen",
  "Edit the last question, in an empty message box": "Letzte Frage bearbeiten, im leeren Nachrichtenfeld",
  "Undo a deletion, outside the message box": "Löschen rückgängig machen, außerhalb des Nachrichtenfelds",
  "This list, outside the message box": "Diese Liste, außerhalb des Nachrichtenfelds",
  // Texts of an empty conversation, unless the operator or a plug-in sets others
  "How can I help?": "Wie kann ich helfen?",
  "Ask anything. The answer appears as it is written.": "Fragen Sie. Die Antwort erscheint, während sie geschrieben wird.",
  "Ask anything": "Fragen Sie etwas",
  "Write a function that finds palindromes": "Schreibe eine Funktion, die Palindrome findet",
  "Compare three ways to make coffee": "Vergleiche drei Arten, Kaffee zu machen",
  "Explain the Pythagorean theorem": "Erkläre den Satz des Pythagoras",
  "Give me five ideas for a rainy Sunday": "Gib mir fünf Ideen für einen verregneten Sonntag",
  // Error messages of the server and of chatstream.js
  "The model is receiving too many requests. Try again shortly.": "Das Modell bekommt zu viele Anfragen. Versuchen Sie es gleich noch einmal.",
  "The model is not available at the moment. Try again shortly.": "Das Modell ist gerade nicht erreichbar. Versuchen Sie es gleich noch einmal.",
  "The model took too long to answer. Try again.": "Das Modell hat zu lange für die Antwort gebraucht. Versuchen Sie es noch einmal.",
  "The model refused this request.": "Das Modell hat diese Anfrage abgelehnt.",
  "The answer broke off before it was finished. Try again.": "Die Antwort brach ab, bevor sie fertig war. Versuchen Sie es noch einmal.",
  "The model sent an unreadable response. Try again.": "Die Antwort des Modells ist nicht lesbar. Versuchen Sie es noch einmal.",
  "The assistant is not set up correctly. Please tell the operator.": "Der Assistent ist nicht richtig eingerichtet. Bitte sagen Sie dem Betreiber Bescheid.",
  "The answer became too long and was cut off.": "Die Antwort wurde zu lang und ist abgeschnitten.",
  "This conversation is too long for the model.": "Diese Unterhaltung ist zu lang für das Modell.",
  "The answer was interrupted. Try again.": "Die Antwort wurde unterbrochen. Versuchen Sie es noch einmal.",
  "It is not known whether an action was carried out. Check that before you ask again.": "Ob eine Aktion ausgeführt wurde, ist nicht bekannt. Prüfen Sie das, bevor Sie noch einmal fragen.",
  "Nothing can be read or stored at the moment. Try again shortly.": "Gerade kann nichts gelesen oder gespeichert werden. Versuchen Sie es gleich noch einmal.",
  "Too many requests. Try again shortly.": "Zu viele Anfragen. Versuchen Sie es gleich noch einmal.",
  "Too many open streams. Close one and try again.": "Zu viele offene Verbindungen. Schließen Sie eine und versuchen Sie es noch einmal.",
  "Your budget has no room for more at the moment.": "Ihr Budget lässt im Moment nicht mehr zu.",
  "Your budget cannot be checked at the moment. Try again shortly.": "Ihr Budget kann gerade nicht geprüft werden. Versuchen Sie es gleich noch einmal.",
  "Access cannot be checked at the moment. Connect again.": "Der Zugang kann gerade nicht geprüft werden. Verbinden Sie sich neu.",
  "The access token has expired. Connect again with a new one.": "Ihre Anmeldung ist abgelaufen. Melden Sie sich neu an.",
  "The server is restarting. Connect again.": "Der Server startet neu. Verbinden Sie sich neu.",
  "This conversation has been deleted.": "Diese Unterhaltung wurde gelöscht.",
  "Something went wrong on the server. Try again.": "Auf dem Server ist etwas schiefgegangen. Versuchen Sie es noch einmal.",
  "The connection failed.": "Die Verbindung ist fehlgeschlagen.",
  "The connection is lost.": "Die Verbindung ist abgebrochen.",
  "No message of the user's with this id is shown.": "Diese Frage ist hier nicht mehr zu sehen.",
  "The access token could not be had.": "Ihr Zugangstoken war nicht zu bekommen.",
  "An access token is required.": "Ein Zugangstoken ist nötig.",
  "Unexpected event from the server.": "Der Server hat etwas Unerwartetes gesendet.",
  "The answer is not an event stream.": "Der Server hat etwas Unerwartetes geantwortet.",
  // Signing in
  "Sign in": "Anmelden",
  "You are not signed in": "Sie sind nicht angemeldet",
  "Paste your access token, or open the link that the server printed.":
    "Fügen Sie Ihr Zugangstoken ein, oder öffnen Sie den Link, den der Server ausgegeben hat.",
  "Access token": "Zugangstoken",
  "Open the chat": "Chat öffnen",
  "All tabs of this browser use this token, until you close the last one.":
    "Alle Tabs dieses Browsers verwenden dieses Token, bis Sie den letzten schließen.",
  "Your sign-in has expired.": "Ihre Anmeldung ist abgelaufen.",
  "The server does not accept this sign-in.": "Der Server nimmt diese Anmeldung nicht an.",
  "This token has expired. Paste a new one.": "Dieses Token ist abgelaufen. Fügen Sie ein neues ein.",
  "The server does not accept this token. Paste another one.":
    "Der Server nimmt dieses Token nicht an. Fügen Sie ein anderes ein.",
};

/** The page's language: set by the operator, else the first of the browser's languages that is supported. */
export const language =
  facts.language ?? navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase()).find((tag) => ["en", "de"].includes(tag)) ?? "en";
const table = language === "de" ? GERMAN : {};

/** Translate `text` into the page's language, and replace `{name}` by `values.name`. */
export function t(text, values = {}) {
  return (Object.hasOwn(table, text) ? table[text] : text).replace(/\{(\w+)\}/g, (mark, name) => values[name] ?? mark);
}

/** Translate the texts in index.html. */
export function translatePage() {
  document.documentElement.lang = language;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    const words = text.data.trim();
    if (words in table) text.data = text.data.replace(words, table[words]);
  }
  for (const name of ["aria-label", "placeholder"]) {
    for (const one of document.querySelectorAll(`[${name}]`)) one.setAttribute(name, t(one.getAttribute(name)));
  }
}
