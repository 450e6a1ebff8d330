"""Conversion of call deadlines (header `Interlock-Deadline`) between wall clock and event loop clock. A deadline only shortens a call."""

import asyncio
import math
from typing import Final

DEADLINE_HEADER: Final = "Interlock-Deadline"


def to_loop_clock(deadline: float, now_us: int) -> float:
    """Converts seconds since 1970 to the event loop's clock. `now_us` is the wall clock in microseconds."""
    return deadline if deadline == math.inf else asyncio.get_running_loop().time() + deadline - now_us / 1e6


def to_wall_clock(deadline: float, now_us: int) -> float:
    """Converts a moment on the event loop's clock to seconds since 1970. `now_us` is the wall clock in microseconds."""
    return now_us / 1e6 + deadline - asyncio.get_running_loop().time()
