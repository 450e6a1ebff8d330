"""Runs that begin with the journal of another run: which steps they keep, a replay to find that out, and what they start with."""
