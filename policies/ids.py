"""Ids that sort by time, so that index inserts stay local, and that nobody can guess."""

import secrets
import time


def new_id(prefix: str) -> str:
    """`prefix_` + 11 hex digits of milliseconds + 80 random bits."""
    return f"{prefix}_{int(time.time() * 1000):011x}{secrets.token_hex(10)}"


def now_us() -> int:
    """Microseconds since 1970-01-01 UTC, the unit of every stored time."""
    return time.time_ns() // 1000
