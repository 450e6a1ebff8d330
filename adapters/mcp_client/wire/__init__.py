"""The MCP JSON format of both eras, and the translation between them."""
