"""The files that the server serves: the chat page and the JavaScript client. It has no Python code."""
