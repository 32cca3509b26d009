// hook.mjs with React 18 in place of the newest one.
import { rmSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

import { bundle } from "./bundle.mjs";

const directory = await mkdtemp(new URL("./node_modules/.react-18-", import.meta.url).pathname);
const react18 = { react: "react-18", "react-test-renderer": "react-test-renderer-18" };
// React's own modules are CommonJS, and of Node.js they ask for `require`.
const require = 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);\n';
await writeFile(`${directory}/hook.mjs`, require + (await bundle('import "./hook.mjs";', { alias: react18 })));
process.on("exit", () => rmSync(directory, { recursive: true }));
process.on("SIGTERM", () => process.exit()); // how a test ends it
await import(pathToFileURL(`${directory}/hook.mjs`));
