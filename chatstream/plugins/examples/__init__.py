"""Example plug-ins. Copy a file to start a plug-in of your own."""
