/** Downloads a conversation, as Markdown for people or as JSON for programs. */

import { fitting } from "./conversations.js";
import { ENDINGS } from "./messages.js";
import { language, t } from "./words.js";

const LONGEST_NAME = 60; // maximum length of a file name, in characters of the title

/** Return a conversation as Markdown, with the newest attempt at each answer. `messages` come from the server's API. */
export function markdown({ title, model, messages }) {
  const newest = new Map(messages.filter(({ role }) => role === "assistant").map((one) => [one.replyTo, one]));
  const read = messages.filter((one) => one.role === "user" || newest.get(one.replyTo) === one);
  const parts = read.map(({ role, content, createdAt, status, error }) => {
    const time = new Date(createdAt).toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });
    const cut = status && status !== "complete" ? `\n\n*(${t(error?.message ?? ENDINGS[status] ?? "An answer is being written")})*` : "";
    return `## ${t(role === "user" ? "You" : "Answer")} · ${time}\n\n${content}${cut}\n`;
  });
  const head = [`# ${title.replaceAll("\n", " ")}`, ...(model ? [`${t("Model")}: ${model}`] : [])];
  return [...head, ...parts].join("\n\n").replace(/\n{3,}(?=## )/g, "\n\n");
}

/** Return the whole conversation as JSON, including all attempts. */
export function json(conversation, messages) {
  return `${JSON.stringify({ conversation, messages }, null, 2)}\n`;
}

/** Let the browser save `text` as a file, named after `title`. */
export function save(title, ending, type, text) {
  const name = fitting(title.replace(/[\s\p{Cc}\p{Cf}\\/:*?"<>|]+/gu, " ").trim(), LONGEST_NAME);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  link.download = `${name || "chat"}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // after a minute the browser has saved the file
}
