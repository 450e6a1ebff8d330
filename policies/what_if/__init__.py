"""Policies tried out: sample calls, recorded decisions, and rehearsals of a change."""
