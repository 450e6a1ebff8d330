"""Limits: how much a person, an agent or a tenant may ask for, and how much an agent, a server or a tool is asked."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog
from msgspec import Struct

from adapters.task import Message, encode
from policies.callers import Caller
from policies.delegation.rulings import Act

KNOWN_MAX = 10_000  # callers whose limits are remembered
REPORTED_MAX = 1000  # people and limits that refusals are counted for, until they are kept
DAY = 86_400
_name = msgspec.json.Encoder().encode
log = structlog.get_logger()


class LimitReached(Exception):
    """As much is asked for as may be; `retry_after` seconds may help."""

    def __init__(self, says: str, retry_after: float) -> None:
        super().__init__(says)
        self.retry_after = max(1, math.ceil(retry_after))


class RateLimited(LimitReached):
    """Too fast."""


class TooManyCalls(LimitReached):
    """Too much at once."""


class BudgetSpent(LimitReached):
    """Too much today."""


class PayloadTooLarge(Exception):
    """The arguments or the message are larger than what they are for may be sent."""


class Limit(Struct, frozen=True):
    """One entry of `limits.per`. A `*` in `who` or `what` counts each one by itself; empty: all together. None: without limit."""

    who: str = ""  # user:NAME | agent:NAME | tenant:NAME
    what: str = ""  # agent:NAME | server:NAME | tool:SERVER.TOOL
    rate: float | None = None  # calls a second
    burst: float | None = None
    concurrent: int | None = None
    calls_per_day: int | None = None
    cost_per_day: float | None = None
    max_bytes: int | None = None

    @property
    def budgeted(self) -> bool:
        return self.calls_per_day is not None or self.cost_per_day is not None

    def subject(self, owner: str, actor: str) -> str | None:
        """Whose share of it a call takes; None where it is not about them."""
        kind, _, name = self.who.partition(":")
        tenant, _, person = owner.split("|", 2)
        found = {"": "", "user": owner, "agent": actor, "tenant": tenant}[kind]
        if kind in ("", "tenant"):
            return "" if name in ("", "*", found) else None
        if not found or (kind == "user" and not person):
            return None
        return found if name in ("*", found, person if kind == "user" else found) else None

    def thing(self, act: Act) -> str | None:
        """The same of what is called."""
        if not self.what:
            return ""
        kind, _, name = self.what.partition(":")
        if kind == "agent":
            found = act.parent if act.action == "invokeAgent" else ""
        elif kind == "server":
            found = act.parent if act.action != "invokeAgent" else ""
        else:
            found = act.resource if act.action == "callTool" else ""
        fits = name == "*" or name == found or (name.endswith(".*") and found.startswith(name[:-1]))
        return found if found and fits else None


class Key(NamedTuple):
    tenant: str
    limit: int
    subject: str
    thing: str


class Meter:
    """What is taken of one limit by one of those it is about. Times are seconds of the process."""

    __slots__ = ("calls", "cost", "fresh_calls", "fresh_cost", "limit", "name", "stamp", "tenant", "timeless", "tokens", "under_way")

    def __init__(self, limit: Limit, tenant: str, name: str, now: float) -> None:
        self.limit = limit
        self.tenant = tenant
        self.name = name
        self.stamp = now
        self.tokens = self._burst()
        self.timeless = limit.rate is None and not limit.budgeted
        self.under_way = 0
        self.calls = self.cost = 0  # of today, as kept
        self.fresh_calls = self.fresh_cost = 0  # not kept yet; costs in millionths

    def check(self, now: float, clock: float) -> None:
        """Raises LimitReached. `clock` counts seconds since 1970."""
        limit = self.limit
        self.check_room()
        if limit.rate is not None:
            self._fill(now, limit.rate)
            if self.tokens < 1:
                raise RateLimited(f"Calls come faster than they may ({self._of()}); slow down.", (1 - self.tokens) / limit.rate)
        spent = limit.calls_per_day is not None and self.calls + self.fresh_calls >= limit.calls_per_day
        if limit.cost_per_day is not None and self.cost + self.fresh_cost >= limit.cost_per_day * 1_000_000:
            spent = True
        if spent:
            raise BudgetSpent(f"The budget of this day is spent ({self._of()}).", DAY - clock % DAY)

    def check_room(self) -> None:
        """Raises TooManyCalls."""
        if self.limit.concurrent is not None and self.under_way >= self.limit.concurrent:
            raise TooManyCalls(f"As many calls are under way as may be ({self._of()}); wait until some end.", 1)

    def take(self) -> None:
        self.under_way += 1
        if self.limit.rate is not None:
            self.tokens -= 1
        if self.limit.budgeted:
            self.fresh_calls += 1

    def free(self) -> None:
        self.under_way -= 1

    def idle(self, now: float) -> bool:
        """Whether nothing is lost when it is forgotten."""
        if self.limit.rate is not None:
            self._fill(now, self.limit.rate)
        return not (self.under_way or self.limit.budgeted or (self.limit.rate is not None and self.tokens < self._burst()))

    def _burst(self) -> float:
        return self.limit.burst or max(1.0, self.limit.rate or 1.0)

    def _fill(self, now: float, rate: float) -> None:
        self.tokens = min(self._burst(), self.tokens + (now - self.stamp) * rate)
        self.stamp = now

    def _of(self) -> str:
        return " for ".join(filter(None, (self.limit.who, self.limit.what))) or "all together"


class Report(NamedTuple):
    """Refusals that are told of together."""

    tenant: str
    owner: str
    actor: str
    reason: str
    limit: str


class Limits:
    """All meters of this process. Every check is one synchronous step; tenants share none of them."""

    def __init__(self, limits: Sequence[Limit], now: Callable[[], float], clock: Callable[[], float]) -> None:
        """`now` counts seconds of the process, `clock` since 1970."""
        self._limits = tuple(limits)
        self._now = now
        self._clock = clock
        self._meters: dict[Key, Meter] = {}
        self._known: dict[str, dict[str, tuple[Meter, ...]]] = {}
        self._kept: Mapping[tuple[str, str], tuple[int, int]] = {}
        self._sized = any(limit.max_bytes is not None for limit in limits)
        self.refused: Counter[Report] = Counter()

    @property
    def budgeted(self) -> bool:
        """Whether any limit is a budget, which has to be kept."""
        return any(limit.budgeted for limit in self._limits)

    def enter(self, caller: Caller, act: Act, sent: bytes | Message) -> tuple[Meter, ...]:
        """Takes what a call takes; each is to be freed when it is over. Raises LimitReached and PayloadTooLarge, and then took nothing."""
        if not self._limits:
            return ()
        by_act = self._known.get(caller.key)
        meters = by_act.get(act.permission) if by_act is not None else None
        if meters is None:
            meters = self._matching(caller, act)
        try:
            if self._sized:
                _check_size(meters, sent)
            self._check(meters)
        except (LimitReached, PayloadTooLarge) as error:
            self.report(caller, error)
            raise
        for meter in meters:
            meter.take()
        return meters

    def report(self, caller: Caller, error: Exception) -> None:
        """Counts a refusal for the log and the audit, which hear of all of them together."""
        self._report(caller.principal.owner, caller.delegation.actor, error)

    def occupy(self, caller: Caller, act: Act) -> tuple[Meter, ...]:
        """A place for what was counted when it was asked for, and had to wait. Raises TooManyCalls, and then took nothing."""
        meters = self._matching(caller, act)
        for meter in meters:
            meter.check_room()
        for meter in meters:
            meter.under_way += 1
        return meters

    def request(self, caller: Caller) -> None:
        """One request of administration: only how fast a person or an agent may ask counts. Raises RateLimited."""
        self.ask(caller.principal.owner, caller.delegation.actor)

    def ask(self, owner: str, actor: str) -> None:
        """The same for whoever is no caller yet. `owner` is tenant|issuer|subject. Raises RateLimited."""
        asked = [(at, limit) for at, limit in enumerate(self._limits) if limit.rate is not None and limit.who and not limit.what]
        meters = [self._meter(at, owner, subject, "") for at, limit in asked if (subject := limit.subject(owner, actor)) is not None]
        now, clock = self._now(), self._clock()
        try:
            for meter in meters:
                meter.check(now, clock)
        except RateLimited as error:
            self._report(owner, actor, error)
            raise
        except LimitReached:
            return  # what is under way, or spent, are calls
        for meter in meters:
            meter.tokens -= 1

    def charge(self, owner: str, amount: int, actor: str = "", act: Act | None = None) -> None:
        """Adds to what was spent today, in millionths of a unit: by a person, by the agent that acted, for what was called."""
        for at, limit in enumerate(self._limits):
            subject, thing = limit.subject(owner, actor), limit.thing(act) if act is not None else None if limit.what else ""
            if limit.cost_per_day is not None and subject is not None and thing is not None:
                self._meter(at, owner, subject, thing).fresh_cost += amount

    def spending(self) -> list[Meter]:
        """Meters of budgets that have something to keep."""
        return [meter for meter in self._meters.values() if meter.fresh_calls or meter.fresh_cost]

    def restore(self, kept: Mapping[tuple[str, str], tuple[int, int]]) -> None:
        """What was spent today by all processes: calls and cost, by tenant and name of a meter."""
        self._kept = kept
        for meter in self._meters.values():
            if meter.limit.budgeted:
                meter.calls, meter.cost = kept.get((meter.tenant, meter.name), (0, 0))

    def sweep(self) -> None:
        """Forgets whoever has not asked for a while."""
        now = self._now()
        self._known.clear()
        self._meters = {key: meter for key, meter in self._meters.items() if not meter.idle(now)}

    def _check(self, meters: tuple[Meter, ...]) -> None:
        if len(meters) == 1 and meters[0].timeless:  # as it nearly always is
            meters[0].check(0.0, 0.0)
            return
        now, clock = self._now(), self._clock()
        for meter in meters:
            meter.check(now, clock)

    def _matching(self, caller: Caller, act: Act) -> tuple[Meter, ...]:
        owner, actor = caller.principal.owner, caller.delegation.actor
        found = [(at, limit.subject(owner, actor), limit.thing(act)) for at, limit in enumerate(self._limits)]
        meters = tuple(self._meter(at, owner, subject, thing) for at, subject, thing in found if subject is not None and thing is not None)
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        by_act = self._known.setdefault(caller.key, {})
        if len(by_act) >= KNOWN_MAX:
            by_act.clear()
        by_act[act.permission] = meters
        return meters

    def _meter(self, at: int, owner: str, subject: str, thing: str) -> Meter:
        key = Key(owner.partition("|")[0], at, subject, thing)
        meter = self._meters.get(key)
        if meter is None:
            limit = self._limits[at]
            name = _name([limit.who, limit.what, subject, thing]).decode()
            meter = self._meters[key] = Meter(limit, key.tenant, name, self._now())
            if limit.budgeted:
                meter.calls, meter.cost = self._kept.get((key.tenant, name), (0, 0))
        return meter

    def _report(self, owner: str, actor: str, error: Exception) -> None:
        report = Report(owner.partition("|")[0], owner, actor, type(error).__name__, str(error))
        if report in self.refused or len(self.refused) < REPORTED_MAX:
            self.refused[report] += 1


def _check_size(meters: tuple[Meter, ...], sent: bytes | Message) -> None:
    size = -1
    for meter in meters:
        most = meter.limit.max_bytes
        if most is None:
            continue
        if size < 0:
            size = len(sent) if isinstance(sent, bytes) else len(encode(sent))
        if size > most:
            raise PayloadTooLarge(f"It takes at most {most} bytes; this has {size}.")


def leave(shares: Sequence[Any]) -> None:
    """Gives back what a call has taken."""
    for share in shares:
        share.free()
