"""Agents of Amazon Bedrock and of AgentCore Runtime, and the request signatures of AWS."""
