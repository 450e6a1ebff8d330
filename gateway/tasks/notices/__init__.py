"""Notices: what people are asked and what became of it, as a feed in one order and as signed notifications to the operator's webhooks."""
