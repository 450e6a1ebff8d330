"""The gateway under four times the load it can take: `make overload`."""
