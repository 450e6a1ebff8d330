"""The story that users come with, played against a real gateway, each step of it checked."""
