"""The audit: decisions, their explanations, traces, what a changed policy would have decided, and what is deleted with time."""
