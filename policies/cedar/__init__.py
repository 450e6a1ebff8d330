"""Cedar policies: the engine, the schema, and the requests made from calls."""
