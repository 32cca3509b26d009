"""Thin doors: the only code that knows HTTP."""
