// A user's conversations: made, found, renamed, deleted.
import { Conversations } from "chatstream";

export async function tidyUp({ baseUrl, token }) {
  const conversations = new Conversations({ baseUrl, token });
  const { id } = await conversations.create({ autoTitle: true }); // the model names it after its first answer
  const { conversations: found } = await conversations.search("coffee"); // in titles and messages
  await conversations.rename(id, "Coffee");
  await conversations.delete(id);
  return found.map(({ title }) => title);
}
