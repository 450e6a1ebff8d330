"""The history of the database schema; `HEAD` is the version that this code expects."""

HEAD = "0035"
USABLE_FROM = "0028"  # HEAD of the last release, whose code works on this schema too: see docs/upgrading.md
