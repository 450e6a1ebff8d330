"""Turns at the worker processes: tenants take turns, and the owners of a tenant."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.calls.limits.fair_queue import FairQueue, Waiter
from gateway.concurrency.fair_shares import Capacity, Portion, ShareCount


class _Lane:
    """The requests of one owner."""

    __slots__ = ("owner", "portion", "tenant")

    def __init__(self, owner: str, portion: Portion) -> None:
        self.owner = owner
        self.tenant = owner.partition("|")[0]
        self.portion = portion

    def exhausted_share(self, share_multiple: int) -> ShareCount | None:
        return self.portion.exhausted_share(share_multiple)

    def counts_towards(self, shares: set[ShareCount]) -> bool:
        return not shares.isdisjoint((self.portion.whole, self.portion.tenant, self.portion.person))


class FairTurns:
    """A number of turns at once. Requests are short, so one owner may take them all while no other asks for one."""

    def __init__(self, size: int) -> None:
        self._capacity = Capacity(size, size, size)
        self._queue: FairQueue[_Lane] = FairQueue()
        self._lanes: dict[str, _Lane] = {}

    @asynccontextmanager
    async def turn_of(self, owner: str) -> AsyncIterator[None]:
        """Waits for a turn of `owner`, which is tenant|…, and holds it."""
        lane = self._lanes.get(owner)
        if lane is None:
            lane = self._lanes[owner] = _Lane(owner, self._capacity.portion_of(owner))
        await self._take(lane)
        try:
            yield
        finally:
            self._free(lane)

    async def _take(self, lane: _Lane) -> None:
        if not self._queue and lane.exhausted_share(1) is None:
            lane.portion.take()
            return
        waiter = Waiter(asyncio.get_running_loop().create_future(), 1)
        self._queue.add(lane, waiter)
        try:
            await waiter.outcome
        except asyncio.CancelledError:
            if waiter.has_slot:
                self._free(lane)
            raise
        finally:
            self._queue.remove(lane, waiter)

    def _free(self, lane: _Lane) -> None:
        lane.portion.free()
        while self._queue and (found := self._queue.pop()) is not None:
            following, waiter = found
            if waiter.grant():
                following.portion.take()
        if not self._queue and not self._capacity.whole.count:
            self._lanes.clear()
            self._capacity.sweep()
