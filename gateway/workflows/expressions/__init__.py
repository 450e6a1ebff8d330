"""Runtime expressions in jq, evaluated in a worker process without rights, files, network or environment."""
