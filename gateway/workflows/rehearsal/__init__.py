"""Rehearsals: a document runs against given answers of agents and tools, in virtual time; nothing leaves the machine."""
