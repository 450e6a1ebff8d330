"""What each process does from time to time: it looks whether others moved what is followed there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.tasks.log import TaskLog

EVERY = 0.02  # seconds


@asynccontextmanager
async def looking(*logs: TaskLog) -> AsyncIterator[None]:
    """For as long as the block lasts."""

    async def look() -> None:
        while True:
            for log in logs:
                await (_look_again(log) if log._database.is_sqlite else log.poll_other_processes())
            await asyncio.sleep(EVERY)

    looks = asyncio.create_task(look())
    try:
        yield
    finally:
        looks.cancel()
        await asyncio.gather(looks, return_exceptions=True)


async def _look_again(log: TaskLog) -> None:
    """Of two processes on one SQLite file, which tests have and nobody else: whoever follows asks the database again."""
    for row in list(log._live_events.awaited_rows()):
        if (tail := log._live_events.find(row.tenant, row.id)) is not None:
            tail.invalidate()
