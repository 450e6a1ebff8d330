"""Publishes a document as an agent: its card, contracts and ceiling, and the refusal of what this version does not run."""
