"""Cards: reading, signing and republishing them."""
