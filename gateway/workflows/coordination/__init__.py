"""Coordination: steps in which an agent plans what other agents and tools do, and the choice among agents that have a skill."""
