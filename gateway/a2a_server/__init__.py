"""The A2A door: every registered agent, served as an A2A agent of the gateway's own."""
