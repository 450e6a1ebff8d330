"""Anthropic's managed agents."""
