"""Commands about state that agents share: claims and subjects."""
