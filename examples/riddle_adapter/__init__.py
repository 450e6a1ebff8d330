"""A distribution of its own that brings an adapter: for agents that speak Riddle, which exists in this example alone."""
