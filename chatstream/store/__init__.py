"""The only code that knows MongoDB: conversations, messages, and the embedded database of development."""
