/** The server's facts for its page; see chatstream/handlers/page.py. */
export const facts = JSON.parse(document.querySelector('meta[name="chatstream"]').content);
