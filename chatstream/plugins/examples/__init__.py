"""Plug-ins to begin with: each is a file to copy."""
