"""The vault: secrets of upstreams, encrypted by wrapping keys."""
