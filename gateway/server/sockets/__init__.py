"""The sockets of clients: HTTP parsing, time limits, and the number of connections."""
