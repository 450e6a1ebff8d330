"""Google ADK: agents behind its api_server."""
