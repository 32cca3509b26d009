"""``python -m chatstream chat``: a chat client for the terminal. It uses only the public HTTP API."""
