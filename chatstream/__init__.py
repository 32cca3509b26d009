"""chatstream: a server for streaming LLM answers to chat clients over Server-Sent Events."""

__version__ = "0.1.0"
