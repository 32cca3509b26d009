"""A sports betting assistant: its prompt, and the bets that its answers recommend."""
