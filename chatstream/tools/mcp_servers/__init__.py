"""Tools of MCP servers (Model Context Protocol). Only what stands here knows the `mcp` package, which is an extra."""
