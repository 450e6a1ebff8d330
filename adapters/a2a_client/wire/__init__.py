"""The A2A JSON format, written strictly and read tolerantly, for the client and for the gateway's own A2A server."""
