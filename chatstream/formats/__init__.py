"""The wire formats: the same answer, generated once, is sent in several forms.

A format is a module, and a line in `registry`.
"""
