"""The command line's groups of commands, one noun a file; heavy imports wait until a command runs."""
