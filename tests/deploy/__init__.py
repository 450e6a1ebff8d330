"""The files of examples/deploy and the guide to them: what they say is safe, complete and there."""
