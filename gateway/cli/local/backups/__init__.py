"""backup and restore: the gateway's database and home folder as one file."""
