"""Salesforce Agentforce."""
