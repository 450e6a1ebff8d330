"""The version of Interlock, used by the packaging, the command line, the servers and the clients."""

VERSION = "0.1.0"
