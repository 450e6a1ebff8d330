"""Call slots: how many turns and calls one process has under way at once, shared fairly among people, tenants and upstreams."""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from adapters.mcp_client.duplex.channel import CALLS_MAX
from adapters.tool_servers import STDIO_PREFIX
from gateway.calls.limits.fair_queue import FairQueue, Waiter
from gateway.calls.limits.limits import LimitReached, TooManyCalls
from gateway.fair_shares import Capacity, Portion, ShareCount
from policies.callers import Caller
from policies.delegation.history import VERB_STOP_TASK
from policies.delegation.rulings import Act
from registry.cards.card import Registration

NESTED_SHARE_MULTIPLE: Final = 2  # times the usual share, for what a task under way causes: else its own turn could keep it out
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
RETRY_MAX: Final = 30.0  # seconds that a caller is told to stay away at most


class ShareUsed(TooManyCalls):
    """The person, or their tenant, has as many calls under way as their share allows."""


class Overloaded(LimitReached):
    """All slots are taken, by others."""


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """Turns and calls that one process has under way at once, in all and at one upstream; how many more wait, for how many seconds."""

    calls_max: int = 1000
    per_upstream_max: int = 400
    waiting_max: int = 1000
    wait_seconds: float = 10.0


LISTENING_LIMITS: Final = SlotLimits(calls_max=2000, per_upstream_max=500, waiting_max=0, wait_seconds=0.0)


class NoSlot:
    """In the place of a slot, for a call that the ruling refuses."""

    def free(self) -> None:
        """Nothing was taken."""


NO_SLOT: Final = NoSlot()


class Slots:
    """A call takes a slot before it is ruled on, and gives it back when it is over.

    Who is within their shares begins at once. Other calls wait, in a queue in which all tenants and their people take turns; they are
    refused when they have waited too long, or when too many wait.
    """

    def __init__(
        self,
        limits: SlotLimits,
        now: Callable[[], float],
        workers: Mapping[str, int] | None = None,
        can_see: Callable[[Caller, Act], bool] = lambda caller, act: True,
        report_refusal: Callable[[Caller, Exception], None] = lambda caller, error: None,
    ) -> None:
        """`now` is the event loop's clock. `sees` tells whether a caller may know of what is called; `report` hears of refusals.

        `workers`: how many calls at once a built-in server takes, by its kind; they all end soon.
        """
        self._can_see = can_see
        self._report_refusal = report_refusal
        self._limits = limits
        self._now = now
        self._workers = workers or {}
        self._whole = Capacity(limits.calls_max)
        self._waiting = Capacity(limits.waiting_max)
        self._upstreams: dict[str, UpstreamSlots] = {}
        self._lanes: dict[tuple[str, str, str], Lane] = {}
        self._queue: FairQueue[Lane] = FairQueue()

    @property
    def waiting_count(self) -> int:
        """Calls that wait for a slot."""
        return len(self._queue)

    def try_acquire(self, caller: Caller, target: Registration) -> "Lane | None":
        """A slot at once, to be given back by `Lane.free`; None where the caller has to wait for one."""
        owner = caller.principal.owner_key
        lane = self._lanes.get((owner, target.url, target.name)) or self._create_lane(owner, target)
        if lane.exhausted_share(_share_multiple(caller)) is not None:
            return None
        lane.take()
        return lane

    async def wait_for_slot(self, caller: Caller, target: Registration, act: Act, deadline: float = math.inf) -> "Lane | NoSlot":
        """A slot when it is the caller's turn, by `last` on the event loop's clock.

        Whoever may not know of the target gets none and does not wait, since that would tell them of it; the ruling refuses them.
        Raises ShareUsed and Overloaded.
        """
        if not self._can_see(caller, act):
            return NO_SLOT
        owner, times = caller.principal.owner_key, _share_multiple(caller, act)
        lane = self._lanes.get((owner, target.url, target.name)) or self._create_lane(owner, target)
        if lane.exhausted_share(times) is None:
            lane.take()
            return lane
        place = self._waiting.portion_of(owner)
        if place.exhausted_share() is None:
            place.take()
            try:
                if await self._wait_in_queue(lane, times, min(deadline, self._now() + self._limits.wait_seconds)):
                    return lane
            finally:
                place.free()
        refusal = lane.build_refusal(times)
        self._report_refusal(caller, refusal)
        raise refusal

    def on_slot_freed(self, upstream: "UpstreamSlots") -> None:
        """A slot was given back: the calls begin whose turn it is."""
        upstream.freed_at = self._now()
        while self._queue and (found := self._queue.pop()) is not None:
            lane, waiter = found
            if waiter.grant():
                lane.take()

    def seconds_since(self, moment: float) -> float:
        return self._now() - moment

    def sweep(self) -> None:
        """Forgets people and upstreams without a call. To be called about once a minute."""
        if self._queue:
            return
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.is_busy}
        self._upstreams = {key: upstream for key, upstream in self._upstreams.items() if upstream.capacity.whole.count}
        for capacity in (self._whole, self._waiting, *(upstream.capacity for upstream in self._upstreams.values())):
            capacity.sweep()

    async def _wait_in_queue(self, lane: "Lane", share_multiple: int, deadline: float) -> bool:
        loop = asyncio.get_running_loop()
        waiter = Waiter(loop.create_future(), share_multiple)
        late = loop.call_later(max(0.0, deadline - self._now()), waiter.expire)
        self._queue.add(lane, waiter)
        try:
            return await waiter.outcome
        except asyncio.CancelledError:
            if waiter.has_slot:
                lane.free()
            raise
        finally:
            late.cancel()
            self._queue.remove(lane, waiter)

    def _create_lane(self, owner: str, target: Registration) -> "Lane":
        workers = self._workers.get(target.kind)
        key = _upstream_key(target) if workers is None else target.kind
        upstream = self._upstreams.get(key)
        if upstream is None:
            size = min(self._limits.per_upstream_max, CALLS_MAX) if target.url.startswith(STDIO_PREFIX) else self._limits.per_upstream_max
            capacity = Capacity(size) if workers is None else Capacity(workers, workers, workers)
            upstream = self._upstreams[key] = UpstreamSlots(capacity, self._now())
        lane = self._lanes[owner, target.url, target.name] = Lane(owner, target.name, self._whole.portion_of(owner), upstream, self)
        return lane


class UpstreamSlots:
    """The slots of one host, or of one command. `freed_at`: when one was given back last."""

    __slots__ = ("capacity", "freed_at")

    def __init__(self, capacity: Capacity, now: float) -> None:
        self.capacity = capacity
        self.freed_at = now


class Lane:
    """The calls of one person to one upstream."""

    __slots__ = ("_name", "_shares", "_slots", "_upstream", "_upstream_portion", "_whole_portion", "owner", "tenant")

    def __init__(self, owner: str, name: str, whole: Portion, upstream: UpstreamSlots, slots: Slots) -> None:
        self.owner = owner
        self.tenant = owner.partition("|")[0]
        self._name = name
        self._whole_portion = whole
        self._upstream = upstream
        self._upstream_portion = upstream.capacity.portion_of(owner)
        self._slots = slots
        self._shares = tuple(
            held for part in (self._whole_portion, self._upstream_portion) for held in (part.whole, part.tenant, part.person)
        )

    @property
    def is_busy(self) -> bool:
        return self._upstream_portion.person.count > 0

    def exhausted_share(self, share_multiple: int) -> ShareCount | None:
        """What keeps one more call out; None where it may begin."""
        return self._whole_portion.exhausted_share(share_multiple) or self._upstream_portion.exhausted_share(share_multiple)

    def counts_towards(self, shares: set[ShareCount]) -> bool:
        """Whether a call here counts towards one of these."""
        return bool(shares) and not shares.isdisjoint(self._shares)

    def take(self) -> None:
        self._whole_portion.take()
        self._upstream_portion.take()

    def free(self) -> None:
        self._whole_portion.free()
        self._upstream_portion.free()
        self._slots.on_slot_freed(self._upstream)

    def build_refusal(self, share_multiple: int) -> LimitReached:
        """Why a call can't begin, and after how long it may be tried again: as long as no slot of the upstream was given back."""
        wait = min(self._slots.seconds_since(self._upstream.freed_at), RETRY_MAX)
        portion = self._whole_portion if self._whole_portion.exhausted_share(share_multiple) else self._upstream_portion
        binding, to = portion.exhausted_share(share_multiple), "" if portion is self._whole_portion else f" to {self._name}"
        if binding is portion.tenant:
            return ShareUsed(f"Your tenant has as many calls{to} under way as its share allows; wait until some end.", wait)
        if portion.person.count:
            return ShareUsed(f"You have as many calls{to} under way as your share allows; wait until some end.", wait)
        return Overloaded(f"As many calls{to} are under way as the gateway makes at once; try again later.", wait)


def _share_multiple(caller: Caller, act: Act | None = None) -> int:
    return NESTED_SHARE_MULTIPLE if caller.delegation.task_id or (act is not None and act.verb == VERB_STOP_TASK) else 1


def _upstream_key(target: Registration) -> str:
    """The host and port of an address; the name of what has none, such as a command."""
    parts = urlsplit(target.url if "//" in target.url else f"//{target.url}")
    if target.url.startswith(STDIO_PREFIX) or not parts.hostname:
        return f"{target.tenant}|{target.name}"
    return f"{parts.hostname}:{parts.port or DEFAULT_PORTS.get(parts.scheme, '')}"
