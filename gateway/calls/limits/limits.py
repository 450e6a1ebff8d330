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

CALLERS_MAX = 10_000  # callers whose limits are remembered
REPORTED_MAX = 1000  # people and limits that refusals are counted for, until they are kept
DAY_SECONDS = 86_400
_encode_name = msgspec.json.Encoder().encode
log = structlog.get_logger()


class LimitReached(Exception):
    """As much is asked for as may be; `retry_after` seconds may help."""

    def __init__(self, public_text: str, retry_after: float) -> None:
        super().__init__(public_text)
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
    def is_budget(self) -> bool:
        return self.calls_per_day is not None or self.cost_per_day is not None

    def subject_of(self, owner: str, actor: str) -> str | None:
        """Whose share of it a call takes; None where it is not about them."""
        kind, _, name = self.who.partition(":")
        tenant, _, person = owner.split("|", 2)
        found = {"": "", "user": owner, "agent": actor, "tenant": tenant}[kind]
        if kind in ("", "tenant"):
            return "" if name in ("", "*", found) else None
        if not found or (kind == "user" and not person):
            return None
        return found if name in ("*", found, person if kind == "user" else found) else None

    def callee_of(self, act: Act) -> str | None:
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


class MeterKey(NamedTuple):
    tenant: str
    limit_index: int
    subject: str
    callee: str


class Meter:
    """What is taken of one limit by one of those it is about. Times are seconds of the process."""

    __slots__ = (
        "calls",
        "cost",
        "filled_at",
        "in_flight",
        "limit",
        "name",
        "needs_no_clock",
        "tenant",
        "tokens",
        "unwritten_calls",
        "unwritten_cost",
    )

    def __init__(self, limit: Limit, tenant: str, name: str, now: float) -> None:
        self.limit = limit
        self.tenant = tenant
        self.name = name
        self.filled_at = now
        self.tokens = self._burst_size()
        self.needs_no_clock = limit.rate is None and not limit.is_budget
        self.in_flight = 0
        self.calls = self.cost = 0  # of today, as kept
        self.unwritten_calls = self.unwritten_cost = 0  # not kept yet; costs in millionths

    def check(self, now: float, unix_now: float) -> None:
        """Raises LimitReached. `clock` counts seconds since 1970."""
        limit = self.limit
        self.check_concurrency()
        if limit.rate is not None:
            self._refill(now, limit.rate)
            if self.tokens < 1:
                raise RateLimited(f"Calls come faster than they may ({self._describe_scope()}); slow down.", (1 - self.tokens) / limit.rate)
        spent = limit.calls_per_day is not None and self.calls + self.unwritten_calls >= limit.calls_per_day
        if limit.cost_per_day is not None and self.cost + self.unwritten_cost >= limit.cost_per_day * 1_000_000:
            spent = True
        if spent:
            raise BudgetSpent(f"The budget of this day is spent ({self._describe_scope()}).", DAY_SECONDS - unix_now % DAY_SECONDS)

    def check_concurrency(self) -> None:
        """Raises TooManyCalls."""
        if self.limit.concurrent is not None and self.in_flight >= self.limit.concurrent:
            raise TooManyCalls(f"As many calls are under way as may be ({self._describe_scope()}); wait until some end.", 1)

    def take(self) -> None:
        self.in_flight += 1
        if self.limit.rate is not None:
            self.tokens -= 1
        if self.limit.is_budget:
            self.unwritten_calls += 1

    def free(self) -> None:
        self.in_flight -= 1

    def is_idle(self, now: float) -> bool:
        """Whether nothing is lost when it is forgotten."""
        if self.limit.rate is not None:
            self._refill(now, self.limit.rate)
        return not (self.in_flight or self.limit.is_budget or (self.limit.rate is not None and self.tokens < self._burst_size()))

    def _burst_size(self) -> float:
        return self.limit.burst or max(1.0, self.limit.rate or 1.0)

    def _refill(self, now: float, rate: float) -> None:
        self.tokens = min(self._burst_size(), self.tokens + (now - self.filled_at) * rate)
        self.filled_at = now

    def _describe_scope(self) -> str:
        return " for ".join(filter(None, (self.limit.who, self.limit.what))) or "all together"


class RefusalReport(NamedTuple):
    """Refusals that are told of together."""

    tenant: str
    owner: str
    actor: str
    reason: str
    limit: str


class CallLimits:
    """All meters of this process. Every check is one synchronous step; tenants share none of them."""

    def __init__(self, limits: Sequence[Limit], now: Callable[[], float], unix_now: Callable[[], float]) -> None:
        """`now` counts seconds of the process, `clock` since 1970."""
        self._limits = tuple(limits)
        self._now = now
        self._unix_now = unix_now
        self._meters: dict[MeterKey, Meter] = {}
        self._meters_by_caller: dict[str, dict[str, tuple[Meter, ...]]] = {}
        self._spent_today: Mapping[tuple[str, str], tuple[int, int]] = {}
        self._limits_size = any(limit.max_bytes is not None for limit in limits)
        self.refusals: Counter[RefusalReport] = Counter()

    @property
    def has_budget(self) -> bool:
        """Whether any limit is a budget, which has to be kept."""
        return any(limit.is_budget for limit in self._limits)

    def acquire(self, caller: Caller, act: Act, payload: bytes | Message) -> tuple[Meter, ...]:
        """Takes what a call takes; each is to be freed when it is over. Raises LimitReached and PayloadTooLarge, and then took nothing."""
        if not self._limits:
            return ()
        by_act = self._meters_by_caller.get(caller.ruling_key)
        meters = by_act.get(act.permission) if by_act is not None else None
        if meters is None:
            meters = self._meters_for(caller, act)
        try:
            if self._limits_size:
                _check_size(meters, payload)
            self._check_meters(meters)
        except (LimitReached, PayloadTooLarge) as error:
            self.report_refusal(caller, error)
            raise
        for meter in meters:
            meter.take()
        return meters

    def report_refusal(self, caller: Caller, error: Exception) -> None:
        """Counts a refusal for the log and the audit, which hear of all of them together."""
        self._count_refusal(caller.principal.owner_key, caller.delegation.actor, error)

    def acquire_concurrency(self, caller: Caller, act: Act) -> tuple[Meter, ...]:
        """A place for what was counted when it was asked for, and had to wait. Raises TooManyCalls, and then took nothing."""
        meters = self._meters_for(caller, act)
        for meter in meters:
            meter.check_concurrency()
        for meter in meters:
            meter.in_flight += 1
        return meters

    def count_request(self, caller: Caller) -> None:
        """One request of administration: only how fast a person or an agent may ask counts. Raises RateLimited."""
        self.count_request_of(caller.principal.owner_key, caller.delegation.actor)

    def count_request_of(self, owner: str, actor: str) -> None:
        """The same for whoever is no caller yet. `owner` is tenant|issuer|subject. Raises RateLimited."""
        asked = [(at, limit) for at, limit in enumerate(self._limits) if limit.rate is not None and limit.who and not limit.what]
        meters = [
            self._find_or_create_meter(at, owner, subject, "")
            for at, limit in asked
            if (subject := limit.subject_of(owner, actor)) is not None
        ]
        now, clock = self._now(), self._unix_now()
        try:
            for meter in meters:
                meter.check(now, clock)
        except RateLimited as error:
            self._count_refusal(owner, actor, error)
            raise
        except LimitReached:
            return  # what is under way, or spent, are calls
        for meter in meters:
            meter.tokens -= 1

    def charge(self, owner: str, amount: int, actor: str = "", act: Act | None = None) -> None:
        """Adds to what was spent today, in millionths of a unit: by a person, by the agent that acted, for what was called."""
        for at, limit in enumerate(self._limits):
            subject, thing = limit.subject_of(owner, actor), limit.callee_of(act) if act is not None else None if limit.what else ""
            if limit.cost_per_day is not None and subject is not None and thing is not None:
                self._find_or_create_meter(at, owner, subject, thing).unwritten_cost += amount

    def unwritten_meters(self) -> list[Meter]:
        """Meters of budgets that have something to keep."""
        return [meter for meter in self._meters.values() if meter.unwritten_calls or meter.unwritten_cost]

    def restore_spent(self, spent: Mapping[tuple[str, str], tuple[int, int]]) -> None:
        """What was spent today by all processes: calls and cost, by tenant and name of a meter."""
        self._spent_today = spent
        for meter in self._meters.values():
            if meter.limit.is_budget:
                meter.calls, meter.cost = spent.get((meter.tenant, meter.name), (0, 0))

    def sweep(self) -> None:
        """Forgets whoever has not asked for a while."""
        now = self._now()
        self._meters_by_caller.clear()
        self._meters = {key: meter for key, meter in self._meters.items() if not meter.is_idle(now)}

    def _check_meters(self, meters: tuple[Meter, ...]) -> None:
        if len(meters) == 1 and meters[0].needs_no_clock:  # as it nearly always is
            meters[0].check(0.0, 0.0)
            return
        now, clock = self._now(), self._unix_now()
        for meter in meters:
            meter.check(now, clock)

    def _meters_for(self, caller: Caller, act: Act) -> tuple[Meter, ...]:
        owner, actor = caller.principal.owner_key, caller.delegation.actor
        found = [(at, limit.subject_of(owner, actor), limit.callee_of(act)) for at, limit in enumerate(self._limits)]
        meters = tuple(
            self._find_or_create_meter(at, owner, subject, thing)
            for at, subject, thing in found
            if subject is not None and thing is not None
        )
        if len(self._meters_by_caller) >= CALLERS_MAX:
            self._meters_by_caller.clear()
        by_act = self._meters_by_caller.setdefault(caller.ruling_key, {})
        if len(by_act) >= CALLERS_MAX:
            by_act.clear()
        by_act[act.permission] = meters
        return meters

    def _find_or_create_meter(self, limit_index: int, owner: str, subject: str, callee: str) -> Meter:
        key = MeterKey(owner.partition("|")[0], limit_index, subject, callee)
        meter = self._meters.get(key)
        if meter is None:
            limit = self._limits[limit_index]
            name = _encode_name([limit.who, limit.what, subject, callee]).decode()
            meter = self._meters[key] = Meter(limit, key.tenant, name, self._now())
            if limit.is_budget:
                meter.calls, meter.cost = self._spent_today.get((key.tenant, name), (0, 0))
        return meter

    def _count_refusal(self, owner: str, actor: str, error: Exception) -> None:
        report = RefusalReport(owner.partition("|")[0], owner, actor, type(error).__name__, str(error))
        if report in self.refusals or len(self.refusals) < REPORTED_MAX:
            self.refusals[report] += 1


def _check_size(meters: tuple[Meter, ...], payload: bytes | Message) -> None:
    size = -1
    for meter in meters:
        most = meter.limit.max_bytes
        if most is None:
            continue
        if size < 0:
            size = len(payload) if isinstance(payload, bytes) else len(encode(payload))
        if size > most:
            raise PayloadTooLarge(f"It takes at most {most} bytes; this has {size}.")


def release(shares: Sequence[Any]) -> None:
    """Gives back what a call has taken."""
    for share in shares:
        share.free()
