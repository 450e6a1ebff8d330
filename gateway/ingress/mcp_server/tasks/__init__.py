"""Tasks of MCP, over agents and over servers of either era."""
