"""Tells the operator's own server what its users should hear of though they do not watch."""
