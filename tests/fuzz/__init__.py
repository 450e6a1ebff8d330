"""Random requests to `/api`, MCP and A2A of a whole gateway. No answer may be a server error, and none may be missing."""
