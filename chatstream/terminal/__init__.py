"""``python -m chatstream chat``: a conversation from a terminal. A client like any other: it knows only the wire."""
