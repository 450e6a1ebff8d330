"""The SDK for vendors' adapters: the agent class, the connection, frames, content and faults."""
