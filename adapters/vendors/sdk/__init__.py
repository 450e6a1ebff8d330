"""What an adapter of a vendor's agent is written with: the base class, the connection, frames, content and faults."""
