"""Background tasks of an event loop, and places that callers share fairly."""
