"""Limits of calls: rates, budgets, concurrency, open streams, deadlines."""
