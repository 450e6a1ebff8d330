"""Call slots: how many turns and calls one process has under way at once, shared fairly among people, tenants and upstreams."""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from adapters.mcp_client.duplex.channel import CALLS_MAX
from adapters.tool_servers import STDIO
from gateway.calls.limits.fair_queue import FairQueue, Waiter
from gateway.calls.limits.limits import LimitReached, TooManyCalls
from gateway.fair_shares import Capacity, Held, Portion
from policies.callers import Caller
from policies.delegation.history import STOP
from policies.delegation.rulings import Act
from registry.cards.card import Registration

NESTED: Final = 2  # times the usual share, for what a task under way causes: else its own turn could keep it out
PORTS: Final = {"http": 80, "https": 443}
RETRY_MAX: Final = 30.0  # seconds that a caller is told to stay away at most


class ShareUsed(TooManyCalls):
    """The person, or their tenant, has as many calls under way as their share allows."""


class Overloaded(LimitReached):
    """All slots are taken, by others."""


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """Turns and calls that one process has under way at once, in all and at one upstream; how many more wait, for how many seconds."""

    calls: int = 1000
    per_upstream: int = 400
    waiting: int = 1000
    seconds: float = 10.0


LISTENING: Final = SlotLimits(calls=2000, per_upstream=500, waiting=0, seconds=0.0)


class Slotless:
    """In the place of a slot, for a call that the ruling refuses."""

    def free(self) -> None:
        """Nothing was taken."""


SLOTLESS: Final = Slotless()


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
        sees: Callable[[Caller, Act], bool] = lambda caller, act: True,
        report: Callable[[Caller, Exception], None] = lambda caller, error: None,
    ) -> None:
        """`now` is the event loop's clock. `sees` tells whether a caller may know of what is called; `report` hears of refusals.

        `workers`: how many calls at once a built-in server takes, by its kind; they all end soon.
        """
        self._sees = sees
        self._report = report
        self._limits = limits
        self._now = now
        self._workers = workers or {}
        self._all = Capacity(limits.calls)
        self._waiting = Capacity(limits.waiting)
        self._upstreams: dict[str, Upstream] = {}
        self._lanes: dict[tuple[str, str, str], Lane] = {}
        self._queue: FairQueue[Lane] = FairQueue()

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot."""
        return len(self._queue)

    def enter(self, caller: Caller, target: Registration) -> "Lane | None":
        """A slot at once, to be given back by `Lane.free`; None where the caller has to wait for one."""
        owner = caller.principal.owner
        lane = self._lanes.get((owner, target.url, target.name)) or self._lane(owner, target)
        if lane.binding(_times(caller)) is not None:
            return None
        lane.take()
        return lane

    async def wait(self, caller: Caller, target: Registration, act: Act, last: float = math.inf) -> "Lane | Slotless":
        """A slot when it is the caller's turn, by `last` on the event loop's clock.

        Whoever may not know of the target gets none and does not wait, since that would tell them of it; the ruling refuses them.
        Raises ShareUsed and Overloaded.
        """
        if not self._sees(caller, act):
            return SLOTLESS
        owner, times = caller.principal.owner, _times(caller, act)
        lane = self._lanes.get((owner, target.url, target.name)) or self._lane(owner, target)
        if lane.binding(times) is None:
            lane.take()
            return lane
        place = self._waiting.portion(owner)
        if place.binding() is None:
            place.take()
            try:
                if await self._granted(lane, times, min(last, self._now() + self._limits.seconds)):
                    return lane
            finally:
                place.free()
        refusal = lane.refusal(times)
        self._report(caller, refusal)
        raise refusal

    def now_free(self, upstream: "Upstream") -> None:
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
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.busy}
        self._upstreams = {key: upstream for key, upstream in self._upstreams.items() if upstream.capacity.whole.count}
        for capacity in (self._all, self._waiting, *(upstream.capacity for upstream in self._upstreams.values())):
            capacity.sweep()

    async def _granted(self, lane: "Lane", times: int, until: float) -> bool:
        loop = asyncio.get_running_loop()
        waiter = Waiter(loop.create_future(), times)
        late = loop.call_later(max(0.0, until - self._now()), waiter.expire)
        self._queue.add(lane, waiter)
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter.has_slot:
                lane.free()
            raise
        finally:
            late.cancel()
            self._queue.remove(lane, waiter)

    def _lane(self, owner: str, target: Registration) -> "Lane":
        workers = self._workers.get(target.kind)
        key = _upstream_of(target) if workers is None else target.kind
        upstream = self._upstreams.get(key)
        if upstream is None:
            size = min(self._limits.per_upstream, CALLS_MAX) if target.url.startswith(STDIO) else self._limits.per_upstream
            capacity = Capacity(size) if workers is None else Capacity(workers, workers, workers)
            upstream = self._upstreams[key] = Upstream(capacity, self._now())
        lane = self._lanes[owner, target.url, target.name] = Lane(owner, target.name, self._all.portion(owner), upstream, self)
        return lane


class Upstream:
    """The slots of one host, or of one command. `freed_at`: when one was given back last."""

    __slots__ = ("capacity", "freed_at")

    def __init__(self, capacity: Capacity, now: float) -> None:
        self.capacity = capacity
        self.freed_at = now


class Lane:
    """The calls of one person to one upstream."""

    __slots__ = ("_all", "_counts", "_here", "_name", "_slots", "_upstream", "owner", "tenant")

    def __init__(self, owner: str, name: str, whole: Portion, upstream: Upstream, slots: Slots) -> None:
        self.owner = owner
        self.tenant = owner.partition("|")[0]
        self._name = name
        self._all = whole
        self._upstream = upstream
        self._here = upstream.capacity.portion(owner)
        self._slots = slots
        self._counts = tuple(held for part in (self._all, self._here) for held in (part.whole, part.tenant, part.person))

    @property
    def busy(self) -> bool:
        return self._here.person.count > 0

    def binding(self, times: int) -> Held | None:
        """What keeps one more call out; None where it may begin."""
        return self._all.binding(times) or self._here.binding(times)

    def needs(self, held: set[Held]) -> bool:
        """Whether a call here counts towards one of these."""
        return bool(held) and not held.isdisjoint(self._counts)

    def take(self) -> None:
        self._all.take()
        self._here.take()

    def free(self) -> None:
        self._all.free()
        self._here.free()
        self._slots.now_free(self._upstream)

    def refusal(self, times: int) -> LimitReached:
        """Why a call can't begin, and after how long it may be tried again: as long as no slot of the upstream was given back."""
        wait = min(self._slots.seconds_since(self._upstream.freed_at), RETRY_MAX)
        portion = self._all if self._all.binding(times) else self._here
        binding, to = portion.binding(times), "" if portion is self._all else f" to {self._name}"
        if binding is portion.tenant:
            return ShareUsed(f"Your tenant has as many calls{to} under way as its share allows; wait until some end.", wait)
        if portion.person.count:
            return ShareUsed(f"You have as many calls{to} under way as your share allows; wait until some end.", wait)
        return Overloaded(f"As many calls{to} are under way as the gateway makes at once; try again later.", wait)


def _times(caller: Caller, act: Act | None = None) -> int:
    return NESTED if caller.delegation.task_id or (act is not None and act.verb == STOP) else 1


def _upstream_of(target: Registration) -> str:
    """The host and port of an address; the name of what has none, such as a command."""
    parts = urlsplit(target.url if "//" in target.url else f"//{target.url}")
    if target.url.startswith(STDIO) or not parts.hostname:
        return f"{target.tenant}|{target.name}"
    return f"{parts.hostname}:{parts.port or PORTS.get(parts.scheme, '')}"
