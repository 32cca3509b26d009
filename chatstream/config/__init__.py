"""Reads and checks settings: the env file, the files in TOML, the valid values, and the error messages."""
