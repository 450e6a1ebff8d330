"""The A2A client: agents of A2A 1.0 and 0.3 over JSON-RPC, HTTP+JSON and gRPC."""
