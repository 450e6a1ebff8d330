"""The schema's history; `HEAD` is what this code expects."""

HEAD = "0012"
