"""The protocols in which the gateway is called."""
