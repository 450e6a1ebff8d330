"""Commands about the person who works: how they get into the console."""
