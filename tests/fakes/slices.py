"""Counts the steps of a computation in each iteration of the event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StepCounter:
    """Counts steps while `watch` is entered. The first iterations are those in which the computation starts."""

    def __init__(self) -> None:
        self.total = 0
        self.most_in_one_iteration = 0
        self._in_this_iteration = 0

    def count(self) -> None:
        self.total += 1
        self._in_this_iteration += 1
        self.most_in_one_iteration = max(self.most_in_one_iteration, self._in_this_iteration)

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        while True:
            self._in_this_iteration = 0
            await asyncio.sleep(0)
