"""The token that a command sends: the sessions of `interlock login`, and why the gateway refuses one."""
