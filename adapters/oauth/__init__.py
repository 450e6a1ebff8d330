"""OAuth towards upstreams: discovery, client registration, and access tokens for agents and servers."""
