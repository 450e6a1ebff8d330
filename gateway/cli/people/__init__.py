"""Commands about the person who works: signing in, and the way into the console."""
