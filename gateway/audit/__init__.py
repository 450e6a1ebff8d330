"""Reading the audit: decisions, their explanations, traces, and what a changed policy would have decided."""
