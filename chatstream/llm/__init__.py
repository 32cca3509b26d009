"""The model: an interface, its one implementation over any OpenAI-compatible endpoint, and a demo endpoint."""
