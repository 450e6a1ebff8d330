"""The queue of calls that wait for a slot. Tenants take turns, then users within a tenant, then upstreams within a user's calls."""

import asyncio
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from gateway.concurrency.fair_shares import ShareCount


class QueueLane(Protocol):
    """The calls of one person to one upstream (gateway/calls/limits/slots.py)."""

    @property
    def owner(self) -> str: ...

    @property
    def tenant(self) -> str: ...

    def exhausted_share(self, share_multiple: int) -> ShareCount | None:
        """Returns the share that allows no further call, or None if one more call may start."""
        ...

    def counts_towards(self, shares: set[ShareCount]) -> bool:
        """Returns whether a call of this lane uses one of `shares`."""
        ...


L = TypeVar("L", bound=QueueLane)


class Waiter:
    """One call that waits for a slot. `share_multiple` is how many times the usual share it may use."""

    __slots__ = ("outcome", "share_multiple")

    def __init__(self, outcome: "asyncio.Future[bool]", share_multiple: int) -> None:
        self.outcome = outcome
        self.share_multiple = share_multiple

    def grant(self) -> bool:
        """Gives the slot to the call. Returns False if the call no longer waits."""
        if self.outcome.done():
            return False
        self.outcome.set_result(True)
        return True

    def expire(self) -> None:
        """Ends the wait without a slot."""
        if not self.outcome.done():
            self.outcome.set_result(False)

    @property
    def has_slot(self) -> bool:
        return self.outcome.done() and not self.outcome.cancelled() and self.outcome.result()


class FairQueue(Generic[L]):
    """A fair queue of waiting calls. Calls of one lane start in the order of their arrival."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[str, OrderedDict[str, OrderedDict[L, OrderedDict[Waiter, None]]]] = OrderedDict()
        self.count = 0  # waiting calls; each call that ends reads it, so it is not behind a function

    def __len__(self) -> int:
        return self.count

    def add(self, lane: L, waiter: Waiter) -> None:
        people = self._tenants.setdefault(lane.tenant, OrderedDict())
        lanes = people.setdefault(lane.owner, OrderedDict())
        lanes.setdefault(lane, OrderedDict())[waiter] = None
        self.count += 1

    def remove(self, lane: L, waiter: Waiter) -> None:
        """Removes a call, or does nothing if the call is not in the queue."""
        people = self._tenants.get(lane.tenant, OrderedDict())
        lanes = people.get(lane.owner, OrderedDict())
        waiters = lanes.get(lane, OrderedDict())
        if waiter not in waiters:
            return
        del waiters[waiter]
        self.count -= 1
        if not waiters:
            del lanes[lane]
        if not lanes:
            del people[lane.owner]
        if not people:
            del self._tenants[lane.tenant]

    def pop(self) -> tuple[L, Waiter] | None:
        """Returns the next call that may start, or None. Its tenant, user and lane move to the end of their turns."""
        full: dict[int, set[ShareCount]] = {}  # exhausted shares, by the multiple that a call may use
        for tenant, people in self._tenants.items():
            for owner, lanes in people.items():
                for lane, waiters in lanes.items():
                    waiter = next(iter(waiters))
                    seen = full.setdefault(waiter.share_multiple, set())
                    if lane.counts_towards(seen):
                        continue
                    if (binding := lane.exhausted_share(waiter.share_multiple)) is not None:
                        seen.add(binding)
                        continue
                    self._tenants.move_to_end(tenant)
                    people.move_to_end(owner)
                    lanes.move_to_end(lane)
                    self.remove(lane, waiter)
                    return lane, waiter
        return None
