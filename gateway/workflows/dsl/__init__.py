"""Documents of the Open Workflow Specification DSL 1.0.3: read, checked, typed."""
