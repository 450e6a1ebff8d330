"""Waiting for what another thread, process or database does: by looking again, for a bounded time."""

import asyncio
from collections.abc import Awaitable, Callable

SECONDS = 60.0
EAGER_LOOKS = 50  # without a pause, for what other tasks of the event loop do
PAUSE_SECONDS = 0.002  # then, so that other processes get the processor


async def until(so: Callable[[], bool | Awaitable[bool]], seconds: float = SECONDS, every: float = 0.0) -> None:
    """Returns when it is so. Raises TimeoutError."""
    looks = 0
    async with asyncio.timeout(seconds):
        while True:
            answer = so()
            if answer if isinstance(answer, bool) else await answer:
                return
            looks += 1
            await asyncio.sleep(every or (PAUSE_SECONDS if looks > EAGER_LOOKS else 0))
