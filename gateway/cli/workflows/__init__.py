"""Commands about workflows and their runs."""
