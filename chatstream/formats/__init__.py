"""The wire formats: one answer told in several ways, all from the same run.

A format is a module, and a line in `registry`.
"""
