"""The page that is served, and nothing else: no code."""
