"""What models may call: tools, wherever they come from. How a call lives is told by `generations`."""
