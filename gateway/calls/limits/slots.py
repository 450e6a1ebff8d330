"""Call slots: how many turns and calls one process runs at once, shared fairly among users, tenants and upstreams."""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from adapters.mcp_client.duplex.channel import CALLS_MAX
from adapters.tool_servers import STDIO_PREFIX
from gateway.calls.limits.fair_queue import FairQueue, Waiter
from gateway.calls.limits.meters import LimitReached, TooManyCalls
from gateway.concurrency.fair_shares import Capacity, Portion, ShareCount
from policies.callers import Caller
from policies.delegation.history import VERB_STOP_TASK
from policies.delegation.rulings import Act
from registry.cards.card import Registration

NESTED_SHARE_MULTIPLE: Final = 2  # shares for calls that a running task causes: otherwise its own turn could use up the share
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
RETRY_MAX: Final = 30.0  # upper bound of Retry-After, in seconds


class ShareUsed(TooManyCalls):
    """The caller, or the caller's tenant, uses its whole share of the slots."""


class Overloaded(LimitReached):
    """All slots are in use by other callers."""


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """Bounds of one process: calls in flight in all and per upstream, waiting calls, and seconds that a call waits."""

    calls_max: int = 1000
    per_upstream_max: int = 400
    waiting_max: int = 1000
    wait_seconds: float = 10.0


LISTENING_LIMITS: Final = SlotLimits(calls_max=2000, per_upstream_max=500, waiting_max=0, wait_seconds=0.0)


class NoSlot:
    """Stands for a slot where the ruling will refuse the call, so that no slot is taken."""

    def free(self) -> None:
        """Does nothing, since no slot was taken."""


NO_SLOT: Final = NoSlot()


class Slots:
    """Gives out call slots. A call takes its slot before the ruling and frees it when it ends.

    A caller within its shares starts at once. Other calls wait in a queue in which tenants and their users take turns. A call is
    refused if it waits too long or if too many calls wait.
    """

    def __init__(
        self,
        limits: SlotLimits,
        now: Callable[[], float],
        workers: Mapping[str, int] | None = None,
        can_see: Callable[[Caller, Act], bool] = lambda caller, act: True,
        report_refusal: Callable[[Caller, Exception], None] = lambda caller, error: None,
    ) -> None:
        """`now` is the event loop's clock. `can_see` tells whether a caller may know of the callee. `report_refusal` counts refusals.

        `workers` maps the kind of a built-in server to its number of concurrent calls; such calls are short.
        """
        self._can_see = can_see
        self._report_refusal = report_refusal
        self._limits = limits
        self.now = now
        self._workers = workers or {}
        self._whole = Capacity(limits.calls_max)
        self._waiting = Capacity(limits.waiting_max)
        self._upstreams: dict[str, UpstreamSlots] = {}
        self._lanes: dict[tuple[str, str, str], Lane] = {}
        self.queue: FairQueue[Lane] = FairQueue()

    @property
    def places(self) -> int:
        """Returns the number of calls that may run at once."""
        return self._limits.calls_max

    @property
    def used_count(self) -> int:
        """Returns the number of calls that have a slot."""
        return self._whole.whole.count

    @property
    def waiting_count(self) -> int:
        """Returns the number of calls that wait for a slot."""
        return self.queue.count

    def try_acquire(self, caller: Caller, target: Registration) -> "Lane | None":
        """Returns a slot if one is free for this caller, else None. The caller gives it back with `Lane.free`.

        Only `wait_for_slot` looks at the act, for the larger share of a cancellation, since most calls find a slot here.
        """
        owner = caller.principal.owner_key
        lane = self._lanes.get((owner, target.url, target.name)) or self._create_lane(owner, target)
        return lane if lane.try_take(NESTED_SHARE_MULTIPLE if caller.delegation.task_id else 1) else None

    async def wait_for_slot(self, caller: Caller, target: Registration, act: Act, deadline: float = math.inf) -> "Lane | NoSlot":
        """Waits for a slot until `deadline`, on the event loop's clock, but no longer than `wait_seconds`.

        A caller that may not know of the target gets NO_SLOT at once, because a wait would reveal the target; the ruling then refuses
        the call. Raises ShareUsed and Overloaded.
        """
        if not self._can_see(caller, act):
            return NO_SLOT
        owner, times = caller.principal.owner_key, _share_multiple(caller, act)
        lane = self._lanes.get((owner, target.url, target.name)) or self._create_lane(owner, target)
        if lane.try_take(times):
            return lane
        place = self._waiting.portion_of(owner)
        if place.exhausted_share() is None:
            place.take()
            try:
                if await self._wait_in_queue(lane, times, min(deadline, self.now() + self._limits.wait_seconds)):
                    return lane
            finally:
                place.free()
        refusal = lane.build_refusal(times)
        self._report_refusal(caller, refusal)
        raise refusal

    def start_waiting_calls(self) -> None:
        """Starts the waiting calls that can use slots which were freed."""
        while self.queue.count and (found := self.queue.pop()) is not None:
            lane, waiter = found
            if waiter.grant():
                lane.take()

    def sweep(self) -> None:
        """Deletes lanes and upstreams without a call. The process calls it about once a minute."""
        if self.queue.count:
            return
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.is_busy}
        self._upstreams = {key: upstream for key, upstream in self._upstreams.items() if upstream.capacity.whole.count}
        for capacity in (self._whole, self._waiting, *(upstream.capacity for upstream in self._upstreams.values())):
            capacity.sweep()

    async def _wait_in_queue(self, lane: "Lane", share_multiple: int, deadline: float) -> bool:
        loop = asyncio.get_running_loop()
        waiter = Waiter(loop.create_future(), share_multiple)
        late = loop.call_later(max(0.0, deadline - self.now()), waiter.expire)
        self.queue.add(lane, waiter)
        try:
            return await waiter.outcome
        except asyncio.CancelledError:
            if waiter.has_slot:
                lane.free()
            raise
        finally:
            late.cancel()
            self.queue.remove(lane, waiter)

    def _create_lane(self, owner: str, target: Registration) -> "Lane":
        workers = self._workers.get(target.kind)
        key = _upstream_key(target) if workers is None else target.kind
        upstream = self._upstreams.get(key)
        if upstream is None:
            size = min(self._limits.per_upstream_max, CALLS_MAX) if target.url.startswith(STDIO_PREFIX) else self._limits.per_upstream_max
            capacity = Capacity(size) if workers is None else Capacity(workers, workers, workers)
            upstream = self._upstreams[key] = UpstreamSlots(capacity, self.now())
        lane = self._lanes[owner, target.url, target.name] = Lane(owner, target.name, self._whole.portion_of(owner), upstream, self)
        return lane


class UpstreamSlots:
    """The slots of one host or of one stdio command. `freed_at` is when a slot was last freed, on the event loop's clock."""

    __slots__ = ("capacity", "freed_at")

    def __init__(self, capacity: Capacity, now: float) -> None:
        self.capacity = capacity
        self.freed_at = now


class Lane:
    """The calls of one user to one upstream."""

    __slots__ = ("_name", "_shares", "_slots", "_upstream", "_upstream_portion", "_whole_portion", "owner", "tenant")

    def __init__(self, owner: str, name: str, whole_portion: Portion, upstream: UpstreamSlots, slots: Slots) -> None:
        self.owner = owner
        self.tenant = owner.partition("|")[0]
        self._name = name
        self._whole_portion = whole_portion
        self._upstream = upstream
        self._upstream_portion = upstream.capacity.portion_of(owner)
        self._slots = slots
        self._shares = tuple(
            held for part in (self._whole_portion, self._upstream_portion) for held in (part.whole, part.tenant, part.person)
        )

    @property
    def is_busy(self) -> bool:
        """Returns whether the user has a call in flight here."""
        return self._upstream_portion.person.count > 0

    def exhausted_share(self, share_multiple: int) -> ShareCount | None:
        """Returns the share that allows no further call, or None if one more call may start."""
        return self._whole_portion.exhausted_share(share_multiple) or self._upstream_portion.exhausted_share(share_multiple)

    def counts_towards(self, shares: set[ShareCount]) -> bool:
        """Returns whether a call of this lane uses one of `shares`."""
        return bool(shares) and not shares.isdisjoint(self._shares)

    def try_take(self, share_multiple: int) -> bool:
        """Takes a slot of the process and one of the upstream, or none if a share allows no further call."""
        if self._whole_portion.exhausted_share(share_multiple) or self._upstream_portion.exhausted_share(share_multiple):
            return False
        for share in self._shares:
            share.count += 1
        return True

    def take(self) -> None:
        """Takes a slot of the process and one of the upstream."""
        for share in self._shares:
            share.count += 1

    def free(self) -> None:
        """Gives both slots back and starts calls that wait for them."""
        for share in self._shares:
            share.count -= 1
        slots = self._slots
        self._upstream.freed_at = slots.now()
        if slots.queue.count:
            slots.start_waiting_calls()

    def build_refusal(self, share_multiple: int) -> LimitReached:
        """Returns the error for a call that gets no slot.

        Its `retry_after` is the time since a slot of this upstream was last freed, at most RETRY_MAX seconds.
        """
        wait = min(self._slots.now() - self._upstream.freed_at, RETRY_MAX)
        portion = self._whole_portion if self._whole_portion.exhausted_share(share_multiple) else self._upstream_portion
        binding, to = portion.exhausted_share(share_multiple), "" if portion is self._whole_portion else f" to {self._name}"
        if binding is portion.tenant:
            return ShareUsed(f"Your tenant uses its whole share of concurrent calls{to}; wait until some end.", wait)
        if portion.person.count:
            return ShareUsed(f"You use your whole share of concurrent calls{to}; wait until some end.", wait)
        return Overloaded(f"The gateway has reached its limit of concurrent calls{to}; try again later.", wait)


def _share_multiple(caller: Caller, act: Act) -> int:
    return NESTED_SHARE_MULTIPLE if caller.delegation.task_id or act.verb == VERB_STOP_TASK else 1


def _upstream_key(target: Registration) -> str:
    """Returns the host and port of the target's address, or tenant and name where there is no host, as for a stdio command."""
    parts = urlsplit(target.url if "//" in target.url else f"//{target.url}")
    if target.url.startswith(STDIO_PREFIX) or not parts.hostname:
        return f"{target.tenant}|{target.name}"
    return f"{parts.hostname}:{parts.port or DEFAULT_PORTS.get(parts.scheme, '')}"
