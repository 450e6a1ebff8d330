"""Requests that wait until they may start: tenants take turns, and within a tenant its users."""

from collections import OrderedDict, deque
from typing import NamedTuple, Protocol

from gateway.concurrency.fair_shares import Capacity, Portion


class AdmissibleRequest(Protocol):
    """A request that has not started."""

    def start(self) -> bool:
        """Starts the request. Returns False if its client has gone."""
        ...

    def refuse(self) -> None:
        """Answers that the process is overloaded."""
        ...


class _QueuedRequest(NamedTuple):
    since: float  # by the event loop's clock
    request: AdmissibleRequest
    portion: Portion


class AdmissionQueue:
    """A bounded queue. A user may use as much of it as is free, and a tenant three times as much, as with all fair shares."""

    def __init__(self, size: int) -> None:
        self._capacity = Capacity(size)
        self._tenants: OrderedDict[str, OrderedDict[str, deque[_QueuedRequest]]] = OrderedDict()

    def __len__(self) -> int:
        return self._capacity.whole.count

    def resize(self, size: int) -> None:
        """Sets how many requests may wait. Those that wait already stay."""
        self._capacity.size = size

    def has_room(self, owner: str) -> bool:
        """Returns whether another request of `owner` (tenant|issuer|subject) may wait."""
        return self._capacity.portion_of(owner).exhausted_share() is None

    def add(self, owner: str, request: AdmissibleRequest, now: float) -> bool:
        """Adds a request of `owner` (tenant|issuer|subject). Returns False if the owner's share, or the queue, is used up."""
        portion = self._capacity.portion_of(owner)
        if portion.exhausted_share() is not None:
            return False
        portion.take()
        people = self._tenants.get(tenant := owner.partition("|")[0])
        if people is None:
            people = self._tenants[tenant] = OrderedDict()
        waiting = people.get(owner)
        if waiting is None:
            waiting = people[owner] = deque()
        waiting.append(_QueuedRequest(now, request, portion))
        return True

    def pop(self) -> AdmissibleRequest | None:
        """Returns the next request, or None. Its tenant and user move to the end of their turns."""
        if not self._tenants:
            return None
        tenant, people = next(iter(self._tenants.items()))
        owner, waiting = next(iter(people.items()))
        self._tenants.move_to_end(tenant)
        people.move_to_end(owner)
        entry = waiting.popleft()
        self._leave(tenant, owner, entry)
        return entry.request

    def pop_older(self, moment: float) -> list[AdmissibleRequest]:
        """Removes and returns all requests that have waited since before `moment`."""
        found = []
        for tenant, people in list(self._tenants.items()):
            for owner, waiting in list(people.items()):
                while waiting and waiting[0].since < moment:
                    entry = waiting.popleft()
                    found.append(entry.request)
                    self._leave(tenant, owner, entry)
        return found

    def sweep(self) -> None:
        """Forgets users and tenants without a request in the queue. The process calls it about once a second."""
        self._capacity.sweep()

    def _leave(self, tenant: str, owner: str, entry: _QueuedRequest) -> None:
        entry.portion.free()
        people = self._tenants[tenant]
        if not people[owner]:
            del people[owner]
        if not people:
            del self._tenants[tenant]
