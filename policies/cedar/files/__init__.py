"""The operator's policy files: reading, linking and reviewing them."""
