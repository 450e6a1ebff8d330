"""Workflows: documents of the Open Workflow Specification, and their durable runs as tasks of agents."""
