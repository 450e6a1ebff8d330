"""Requests of this process that wait for claims: a release wakes the first of them, so that they need not look again and again."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from gateway.state.claims.claim import ALL_EFFECTS


class Waiter:
    """One request that waits for a claim on a subject and effect."""

    def __init__(self, effect: str) -> None:
        self.effect = effect
        self._woken = asyncio.Event()
        self._wakes = self._seen = 0

    @property
    def is_woken(self) -> bool:
        """Whether the request was woken, and has not looked since."""
        return self._wakes > self._seen

    def wake(self) -> None:
        self._wakes += 1
        self._woken.set()

    @contextmanager
    def looking(self) -> Iterator[None]:
        """An attempt to take the claim. A wake-up during it leads to another attempt; one that is cancelled does not count."""
        wakes = self._wakes
        self._woken.clear()
        yield
        self._seen = wakes

    async def wait(self, timeout: Awaitable[None]) -> bool:
        """Waits until the request is woken, or until `timeout` is over. Returns whether it was woken."""
        tasks = (asyncio.ensure_future(self._woken.wait()), asyncio.ensure_future(timeout))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        return self.is_woken


class ClaimWaiters:
    """The waiting requests by tenant and subject, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: defaultdict[tuple[str, str], list[Waiter]] = defaultdict(list)

    @contextmanager
    def join(self, tenant: str, subject: str, effect: str) -> Iterator[Waiter]:
        """A place in the row, before the first attempt, so that no release is missed. One that was woken and goes wakes the next."""
        key, waiter = (tenant, subject), Waiter(effect)
        self._waiting[key].append(waiter)
        try:
            yield waiter
        finally:
            self._waiting[key].remove(waiter)
            if waiter.is_woken:
                self.wake(tenant, subject, effect)
            if not self._waiting[key]:
                del self._waiting[key]

    def wake(self, tenant: str, subject: str, effect: str) -> None:
        """Wakes the first request for each effect that a claim on `effect`, which has ended, stood in the way of."""
        seen = set[str]()
        for waiter in self._waiting.get((tenant, subject), ()):
            if waiter.effect not in seen and (ALL_EFFECTS in (effect, waiter.effect) or effect == waiter.effect):
                waiter.wake()
                seen.add(waiter.effect)

