"""Background tasks of an event loop, places that callers share fairly, and admission of requests."""
