"""Commands about the person who works."""
