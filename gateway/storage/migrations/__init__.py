"""The history of the database schema; `HEAD` is the version that this code expects."""

HEAD = "0033"
