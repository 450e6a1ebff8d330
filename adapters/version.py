"""The version of Interlock: the packaging, the command line, the doors, and what agents and servers are told, all take it from here."""

VERSION = "0.1.0"
