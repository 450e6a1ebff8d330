"""Commands about state that agents share."""
