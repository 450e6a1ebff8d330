"""Waiting for what another thread, process or database does: by looking again, for a bounded time."""

import asyncio
from collections.abc import Awaitable, Callable

SECONDS = 60.0


async def until(so: Callable[[], bool | Awaitable[bool]], seconds: float = SECONDS, every: float = 0.0) -> None:
    """Returns when it is so. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            answer = so()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(every)
