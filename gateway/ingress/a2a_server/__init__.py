"""The A2A server: each registered agent is served as an A2A agent of the gateway."""
