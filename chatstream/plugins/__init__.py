"""Plug-ins: an app's own code inside chatstream. See README.md beside this file."""
