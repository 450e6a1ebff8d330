"""Values that are held back because they miss the schema of their key, and what people decide about them."""
