"""Commands that work on the gateway's own machine: start, check, keys, audit files."""
