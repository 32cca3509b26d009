// A program with the packages of a given version of the AI SDK or of React in place of their plain names, as one module.
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const CLIENTS = dirname(fileURLToPath(import.meta.url));

/** Which packages stand for `ai` and `@ai-sdk/react` of this version: `5.0.0`, or `5` for its newest. */
export const aiSDK = (version) => ({ ai: `ai-${version}`, "@ai-sdk/react": `ai-react-${version}` });

/** Its text. `alias` has the packages that stand for others; what is `external` is imported where it runs. */
export async function bundle(contents, { alias = {}, external = [], platform = "node" } = {}) {
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
