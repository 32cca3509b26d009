// Bundles a program into one module, with a given version of the AI SDK or of React in place of the plain package
// names.
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const CLIENTS = dirname(fileURLToPath(import.meta.url));
const PACKAGE = join(CLIENTS, "node_modules", "chatstream");
const MADE = join(CLIENTS, "node_modules", ".bundles");

/** The package aliases for `ai` and `@ai-sdk/react` of this version: `5.0.0`, or `5` for the newest 5.x. */
export const aiSDK = (version) => ({ ai: `ai-${version}`, "@ai-sdk/react": `ai-react-${version}` });

/** Returns the bundle's text. `alias` maps package names to others; packages in `external` are imported at run time. */
export async function bundle(contents, { alias = {}, external = [], platform = "node" } = {}) {
  const options = { alias, external, platform };
  const made = join(MADE, `${await digest(contents, JSON.stringify(options))}.mjs`);
  try {
    return await readFile(made, "utf8"); // most bundles were already made for another test
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  const text = await fromSources(contents, options);
  await mkdir(MADE, { recursive: true });
  const unfinished = `${made}.${process.pid}`;
  await writeFile(unfinished, text);
  await rename(unfinished, made);
  return text;
}

/** A digest of everything in the bundle: the arguments, the packages' versions, and our own package's files. */
async function digest(...given) {
  const hash = createHash("sha256");
  for (const one of given) hash.update(one);
  hash.update(await readFile(join(CLIENTS, "package-lock.json")));
  for (const entry of (await readdir(PACKAGE, { recursive: true })).sort()) {
    if (/\.(js|jsx|ts|tsx|json)$/.test(entry)) hash.update(entry).update(await readFile(join(PACKAGE, entry)));
  }
  return hash.digest("hex");
}

async function fromSources(contents, { alias, external, platform }) {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: CLIENTS, loader: "tsx" },
    absWorkingDir: CLIENTS,
    nodePaths: [join(CLIENTS, "node_modules")], // for the package's own files, beside which there are none
    alias,
    external,
    platform,
    bundle: true,
    write: false,
    format: "esm",
    jsx: "automatic",
    target: "es2022",
    logLevel: "silent",
    preserveSymlinks: true,
    ...(platform === "browser" && { define: { "process.env.NODE_ENV": '"production"' } }),
  });
  return outputFiles[0].text;
}
