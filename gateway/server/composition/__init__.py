"""The only place that constructs the parts of a process and connects them."""
