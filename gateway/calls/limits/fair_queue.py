"""The calls that wait for a slot, in turn: tenants take turns, within a tenant its people, within a person's calls the upstreams."""

import asyncio
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from gateway.fair_shares import ShareCount


class QueueLane(Protocol):
    """The calls of one person to one upstream (gateway/calls/limits/slots.py)."""

    @property
    def owner(self) -> str: ...

    @property
    def tenant(self) -> str: ...

    def exhausted_share(self, share_multiple: int) -> ShareCount | None:
        """What keeps one more call out; None where it may begin."""
        ...

    def counts_towards(self, shares: set[ShareCount]) -> bool:
        """Whether a call here counts towards one of these."""
        ...


L = TypeVar("L", bound=QueueLane)


class Waiter:
    """One call that waits. `times`: how many times the usual share it may use."""

    __slots__ = ("outcome", "share_multiple")

    def __init__(self, outcome: "asyncio.Future[bool]", share_multiple: int) -> None:
        self.outcome = outcome
        self.share_multiple = share_multiple

    def grant(self) -> bool:
        """Lets the call begin; False where it does not wait any more."""
        if self.outcome.done():
            return False
        self.outcome.set_result(True)
        return True

    def expire(self) -> None:
        """The call has waited for as long as it may."""
        if not self.outcome.done():
            self.outcome.set_result(False)

    @property
    def has_slot(self) -> bool:
        return self.outcome.done() and not self.outcome.cancelled() and self.outcome.result()


class FairQueue(Generic[L]):
    """Calls of one lane begin in the order in which they came."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[str, OrderedDict[str, OrderedDict[L, OrderedDict[Waiter, None]]]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, lane: L, waiter: Waiter) -> None:
        people = self._tenants.setdefault(lane.tenant, OrderedDict())
        lanes = people.setdefault(lane.owner, OrderedDict())
        lanes.setdefault(lane, OrderedDict())[waiter] = None
        self._count += 1

    def remove(self, lane: L, waiter: Waiter) -> None:
        """Does nothing where the call is not in the queue any more."""
        people = self._tenants.get(lane.tenant, OrderedDict())
        lanes = people.get(lane.owner, OrderedDict())
        waiters = lanes.get(lane, OrderedDict())
        if waiter not in waiters:
            return
        del waiters[waiter]
        self._count -= 1
        if not waiters:
            del lanes[lane]
        if not lanes:
            del people[lane.owner]
        if not people:
            del self._tenants[lane.tenant]

    def pop(self) -> tuple[L, Waiter] | None:
        """The next call that may begin now; its tenant, person and lane come last from then on."""
        full: dict[int, set[ShareCount]] = {}  # shares that were seen to be full, by the multiple that a call may use of them
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
