// hook.mjs with React 18 in place of the newest one.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

import { bundle } from "./bundle.mjs";

const directory = await mkdtemp(new URL("./node_modules/.react-18-", import.meta.url).pathname);
const react18 = { react: "react-18", "react-test-renderer": "react-test-renderer-18" };
// React's own modules are CommonJS, and of Node.js they ask for `require`.
const require = 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);\n';
await writeFile(`${directory}/hook.mjs`, require + (await bundle('import "./hook.mjs";', { alias: react18 })));
try {
  await import(pathToFileURL(`${directory}/hook.mjs`));
} finally {
  await rm(directory, { recursive: true });
}
