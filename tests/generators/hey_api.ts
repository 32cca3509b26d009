// A client that @hey-api/openapi-ts makes of the document.
import { createConversation, postMessage } from "./generated/hey_api/index.ts";
import { client } from "./generated/hey_api/client.gen.ts";

declare const process: { argv: string[] };
const [, , baseUrl, token] = process.argv;
client.setConfig({ baseUrl, auth: () => token });

const created = await createConversation({ body: {}, throwOnError: true });
const path = { id: created.data.id };
const posted = await postMessage({ path, query: { ifBusy: "queue" }, body: { content: "Hello." } });
if (posted.error) throw new Error(posted.error.detail);
const cursor: string = posted.data.streamCursor;
const missing = await postMessage({ path: { id: "nobody" }, body: { content: "Hello." } });
const status: number | undefined = missing.error?.status;

console.log(JSON.stringify({ content: posted.data.content, first: cursor.length > 0, status }));
