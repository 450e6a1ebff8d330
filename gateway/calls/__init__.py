"""One delegated call: its target, its authorization, its limits, its run and its end."""
