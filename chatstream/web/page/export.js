/** Downloads a conversation: as Markdown for people, as JSON for programs. */

import { language, t } from "./words.js";

const LONGEST_NAME = 60; // characters of a file's name, from its title

/** What is read: the newest attempt at each answer, in order. `messages` are as the server has them. */
export function markdown({ title, model, messages }) {
  const newest = new Map(messages.filter(({ role }) => role === "assistant").map((one) => [one.replyTo, one]));
  const read = messages.filter((one) => one.role === "user" || newest.get(one.replyTo) === one);
  const parts = read.map(({ role, content, createdAt, status, error }) => {
    const time = new Date(createdAt).toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });
    const cut = status && status !== "complete" ? `\n\n*(${error?.message ?? status})*` : "";
    return `## ${t(role === "user" ? "You" : "Answer")} · ${time}\n\n${content}${cut}\n`;
  });
  const head = [`# ${title.replaceAll("\n", " ")}`, ...(model ? [`${t("Model")}: ${model}`] : [])];
  return [...head, ...parts].join("\n\n").replace(/\n{3,}(?=## )/g, "\n\n");
}

/** Everything of it, each attempt included. */
export function json(conversation, messages) {
  return `${JSON.stringify({ conversation, messages }, null, 2)}\n`;
}

/** Have the browser save `text` as a file named like `title`. */
export function save(title, ending, type, text) {
  const name = [...title.replace(/[\s\p{Cc}\p{Cf}\\/:*?"<>|]+/gu, " ").trim()].slice(0, LONGEST_NAME).join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  link.download = `${name || "chat"}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser has saved it by then
}
