"""What an app adds to chatstream: see README.md beside this file."""
