// A real browser with our pages, driven by a test: calls come in and results go out as lines of JSON.
// `chromium` and `firefox` by puppeteer (the second through WebDriver BiDi), `webkit` by the WebDriver of WebKitGTK.
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";

import puppeteer from "puppeteer-core";

import { aiSDK, bundle } from "./bundle.mjs";

const component = (path) => `
  import { createElement } from "react";
  import { createRoot } from "react-dom/client";
  import { Chat } from ${JSON.stringify(path)};
  const { token, ...props } = JSON.parse(decodeURIComponent(location.hash.slice(1)));
  createRoot(document.querySelector("main")).render(createElement(Chat, { ...props, token: () => token }));
`;
const EXAMPLES = "./node_modules/chatstream/examples";
// The scripts of the pages, by name; each runs in `main`. The rest of a page's URL names its conversation.
const PAGES = {
  "use-chat": component(`${EXAMPLES}/use-chat.tsx`),
  "use-chat-sse": component(`${EXAMPLES}/use-chat-sse.tsx`),
  chatstream: `import ${JSON.stringify(`${EXAMPLES}/chatstream.js`)};`,
  client: `import { ChatStream } from "chatstream"; window.ChatStream = ChatStream;`,
};
// The elements that examples/chatstream.js needs; the other examples make their own.
const form = `<ol></ol><p role="status"></p><form><input><button>Send</button><button type="button">Stop</button></form>
  <script>Object.assign(document.querySelector("main").dataset, JSON.parse(decodeURIComponent(location.hash.slice(1))))</script>`;
const html = (name) => `<!doctype html><meta charset="utf-8"><title>${name}</title>
  <main>${name === "chatstream" ? form : ""}</main><script type="module" src="/${name}.js"></script>`;

const server = createServer(async ({ url }, response) => {
  const [, name, type] = /^\/([a-z-]+)\.(js|html)$/.exec(url) ?? [];
  if (!(name in PAGES)) return response.writeHead(404).end();
  response.setHeader("Content-Type", `${type === "js" ? "text/javascript" : "text/html"}; charset=utf-8`);
  response.end(type === "js" ? await bundle(PAGES[name], { alias: aiSDK("7"), platform: "browser" }) : html(name));
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

/** A browser's tab: `goto`, `evaluate` (an expression), `fill` and `click` what a CSS selector finds, `close`. */
async function withPuppeteer(engine) {
  const firefox = engine === "firefox";
  const browser = await puppeteer.launch({
    browser: firefox ? "firefox" : "chrome",
    executablePath: firefox ? "/usr/bin/firefox-esr" : (process.env.CHROMIUM ?? "/usr/bin/chromium"),
    headless: true,
    args: firefox ? [] : ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"],
  });
  let [page] = await browser.pages();
  return {
    version: await browser.version(),
    goto: (url) => page.goto(url).then(() => null),
    evaluate: (expression) => page.evaluate(expression),
    fill: (selector, text) => page.type(selector, text),
    click: (selector) => page.click(selector),
    close: () => browser.close(),
    // Only for these two engines: press keys (`Control+k`), type at the focus, set the size, take a picture, open
    // another tab.
    async press(keys) {
      const [key, ...held] = keys.split("+").reverse();
      for (const each of held) await page.keyboard.down(each);
      await page.keyboard.press(key);
      for (const each of held) await page.keyboard.up(each);
    },
    type: (text) => page.keyboard.type(text),
    resize: (width, height, deviceScaleFactor = 1) => page.setViewport({ width, height, deviceScaleFactor }),
    picture: (path) => page.screenshot({ path }).then(() => null),
    async newTab() {
      page = await browser.newPage();
    },
    async toTab(number) {
      page = (await browser.pages())[number];
      await page.bringToFront();
    },
  };
}

async function withWebDriver() {
  const display = await new Promise((resolve, reject) => {
    const screen = spawn("Xvfb", ["-displayfd", "3", "-nolisten", "tcp"], { stdio: ["ignore", "ignore", "ignore", "pipe"] });
    screen.on("error", reject);
    screen.stdio[3].once("data", (number) => resolve({ screen, number: String(number).trim() }));
  });
  const port = 20_000 + (process.pid % 20_000);
  const driver = spawn("WebKitWebDriver", ["--host=127.0.0.1", `--port=${port}`], {
    env: { ...process.env, DISPLAY: `:${display.number}`, LIBGL_ALWAYS_SOFTWARE: "1" },
    stdio: "ignore",
  });
  const command = async (method, path, body) => {
    const init = { method, body: body && JSON.stringify(body) };
    const { value } = await (await fetch(`http://127.0.0.1:${port}${path}`, init)).json();
    if (value?.error) throw new Error(`${value.error}: ${value.message}`);
    return value;
  };
  while (!(await command("GET", "/status").catch(() => null))?.ready) await pause(50);
  const wanted = { "webkitgtk:browserOptions": { binary: process.env.MINIBROWSER, args: ["--automation"] } };
  const { sessionId, capabilities } = await command("POST", "/session", { capabilities: { alwaysMatch: wanted } });
  const session = `/session/${sessionId}`;
  const element = async (selector) => {
    const found = await command("POST", `${session}/element`, { using: "css selector", value: selector });
    return `${session}/element/${Object.values(found)[0]}`;
  };
  return {
    version: `${capabilities.browserName}/${capabilities.browserVersion}`,
    goto: (url) => command("POST", `${session}/url`, { url }),
    evaluate: (expression) => command("POST", `${session}/execute/sync`, { script: `return (${expression});`, args: [] }),
    fill: async (selector, text) => command("POST", `${await element(selector)}/value`, { text }),
    click: async (selector) => command("POST", `${await element(selector)}/click`, {}),
    close: async () => {
      await command("DELETE", session).catch(() => {});
      driver.kill();
      display.screen.kill();
    },
  };
}

process.on("SIGTERM", () => tab.close().finally(() => process.exit()));

const print = (line) => console.log(JSON.stringify(line));
const engine = JSON.parse(process.argv[2]);
const tab = await (engine === "webkit" ? withWebDriver() : withPuppeteer(engine));
const CALLS = {
  ...tab,
  version: () => tab.version,
  origin: () => `http://127.0.0.1:${server.address().port}`,
  // Poll, since no event of the page covers everything that tests wait for.
  async wait(expression) {
    for (;;) {
      // The page may have no document at the moment.
      if (await tab.evaluate(`Boolean(${expression})`).catch(() => false)) return;
      await pause(50);
    }
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...values] = JSON.parse(line);
  try {
    print({ result: (await CALLS[name](...values)) ?? null });
  } catch (error) {
    print({ rejected: String(error) });
  }
}
await tab.close();
server.close();
