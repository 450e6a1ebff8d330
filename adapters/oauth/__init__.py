"""OAuth towards upstreams: discovery, registration, and access tokens for agents and servers that require them."""
