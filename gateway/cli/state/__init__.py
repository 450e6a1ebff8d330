"""Commands about shared state of a running gateway."""
