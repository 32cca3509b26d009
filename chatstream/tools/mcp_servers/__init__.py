"""Tools of MCP (Model Context Protocol) servers. Only this package imports the optional dependency `mcp`."""
