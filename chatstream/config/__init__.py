"""How settings are read and checked: what a value may be, what is said about one that may not, the env file."""
