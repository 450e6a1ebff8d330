"""The agents and servers that a call can name, including those that the caller must not know of."""
