"""Builds events and push notifications: their rules, their webhooks, and what of their engine is loaded when it is needed."""
