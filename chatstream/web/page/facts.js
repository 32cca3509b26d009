/** What the server tells its page about itself; see chatstream/handlers/page.py. */
export const facts = JSON.parse(document.querySelector('meta[name="chatstream"]').content);
