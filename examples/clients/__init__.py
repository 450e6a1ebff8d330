"""Programs of frameworks whose agents use the tools of the gateway, each with the requirements of its framework."""
