"""Guarded requests to upstreams: allowed addresses, connection pools, bounds, retries, circuit breakers."""
