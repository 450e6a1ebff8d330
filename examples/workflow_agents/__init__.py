"""The agents and tool servers of examples/workflows, scripted: each answers by a rule of its own, without a model."""
