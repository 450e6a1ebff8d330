"""Chaos: gateways are killed at random moments while runs of a workflow are at work, and every effect is counted afterwards."""
