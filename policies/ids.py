"""Ids that sort by time, so that inserts into an index stay local, and that are unpredictable."""

import os
import time
from collections import deque

_IDS_PER_DRAW = 256
_RANDOM_BYTES = 10
_random_pool: deque[str] = deque()
os.register_at_fork(after_in_child=_random_pool.clear)  # two processes must never draw the same bits


def new_id(prefix: str) -> str:
    """`prefix_` + 11 hex digits of milliseconds + 80 random bits. Random bits are drawn from the system for many ids at once."""
    try:
        drawn = _random_pool.pop()
    except IndexError:
        bits = os.urandom(_IDS_PER_DRAW * _RANDOM_BYTES).hex()
        width = 2 * _RANDOM_BYTES
        _random_pool.extend([bits[at : at + width] for at in range(width, len(bits), width)])
        drawn = bits[:width]
    milliseconds = (time.time_ns() // 1_000_000).to_bytes(6, "big")  # faster than a format with a width
    return f"{prefix}_{milliseconds.hex()[1:]}{drawn}"


def now_us() -> int:
    """The current time in microseconds since 1970-01-01 UTC, the unit of every stored time."""
    return time.time_ns() // 1000
