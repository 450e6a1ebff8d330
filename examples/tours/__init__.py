"""Agents, a tool server and settings for the tours of docs/state.md, conflicts.md, memory.md and costs.md."""
