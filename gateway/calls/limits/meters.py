"""Call limits: rates, concurrency, daily budgets and sizes for users, agents, tenants, servers and tools."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from adapters.task import Message, encode
from gateway.calls.limits.limit import Limit
from policies.callers import Caller
from policies.delegation.rulings import Act
from registry.cards.card import Registration
from registry.names import InvalidMember

MILLION = 1_000_000
TAKEN_SECONDS = 0.5  # for which a process believes what the database told of reservations: other processes give theirs back
CALLERS_MAX = 10_000  # callers, and acts per caller, whose meters are cached
REPORTED_MAX = 1000  # kinds of refusals that are counted until they are written to the audit
DAY_SECONDS = 86_400
_encode_name = msgspec.json.Encoder().encode


class LimitReached(Exception):
    """A call would exceed a limit of `limits`. `retry_after` is the number of seconds, at least 1, after which a retry may succeed.

    `summary` names the limit in the same words for each refusal, so that equal refusals are counted together.
    """

    def __init__(self, public_text: str, retry_after: float, summary: str = "") -> None:
        super().__init__(public_text)
        self.summary = summary or public_text
        self.retry_after = max(1, math.ceil(retry_after))


class RateLimited(LimitReached):
    """The calls exceed a `rate` limit."""


class TooManyCalls(LimitReached):
    """The calls in flight have reached a `concurrent` limit or a share of the slots."""


class BudgetSpent(LimitReached):
    """The calls or the cost of today, in UTC, have reached a daily budget, or what is left of it does not cover the call."""


class RunBudgetSpent(BudgetSpent):
    """What is left of the budget of a run does not cover a call that the run causes."""


class PayloadTooLarge(InvalidMember):
    """The arguments or the message have more bytes than `max_bytes` allows. `field` names which; both texts are safe to show."""


class MeterKey(NamedTuple):
    """Identifies a meter: `limit_index` is the position of the limit in `limits.per`."""

    tenant: str
    limit_index: int
    subject: str
    callee: str


class Meter:
    """Counts what one subject uses of one limit for one callee. Times are seconds of the process's clock."""

    __slots__ = (
        "calls",
        "cost",
        "filled_at",
        "in_flight",
        "limit",
        "name",
        "needs_no_clock",
        "taken",
        "taken_by_ended",
        "taken_until",
        "tenant",
        "tokens",
        "unwritten_calls",
    )

    def __init__(self, limit: Limit, tenant: str, name: str, now: float) -> None:
        self.limit = limit
        self.tenant = tenant
        self.name = name
        self.filled_at = now
        self.tokens = self._burst_size()
        self.needs_no_clock = limit.rate is None and not limit.is_budget
        self.in_flight = 0
        self.calls = self.cost = 0  # of today, as the database has them; costs in millionths of the currency
        self.unwritten_calls = 0  # not in the database yet
        # cost with all reservations, the part of ended calls, which the database told when it refused one; for how long they hold
        self.taken, self.taken_by_ended, self.taken_until = 0, 0, 0.0

    def check(self, now: float, unix_now: float) -> None:
        """Raises RateLimited, TooManyCalls or BudgetSpent if one more call exceeds the limit. `unix_now` is in seconds since 1970."""
        limit = self.limit
        self.check_concurrency()
        if limit.rate is not None:
            self._refill(now, limit.rate)
            if self.tokens < 1:
                raise RateLimited(f"The rate limit is exceeded ({self.describe_scope()}); slow down.", (1 - self.tokens) / limit.rate)
        spent = limit.calls_per_day is not None and self.calls + self.unwritten_calls >= limit.calls_per_day
        if spent or (limit.cost_per_day is not None and self.cost >= self.cost_max):
            text = f"The budget for today is spent ({self.describe_scope()}). It begins anew at midnight, UTC."
            raise BudgetSpent(text, seconds_of_day_left(unix_now))

    @property
    def cost_max(self) -> int:
        """Returns what calls may cost in a day, in millionths."""
        return round((self.limit.cost_per_day or 0) * MILLION)

    def note_taken(self, charged: int, reserved: int, now: float) -> None:
        """Remembers for a moment what the database has reserved and charged, so that a flood of calls is refused without it."""
        self.taken, self.taken_by_ended, self.taken_until = charged + reserved, charged, now + TAKEN_SECONDS

    def check_concurrency(self) -> None:
        """Raises TooManyCalls if as many calls as the limit allows are in flight."""
        if self.limit.concurrent is not None and self.in_flight >= self.limit.concurrent:
            raise TooManyCalls(f"The limit of concurrent calls is reached ({self.describe_scope()}); wait until some end.", 1)

    def take(self) -> None:
        """Counts one call that starts."""
        self.in_flight += 1
        if self.limit.rate is not None:
            self.tokens -= 1
        if self.limit.calls_per_day is not None:
            self.unwritten_calls += 1

    def free(self) -> None:
        """Counts one call that has ended."""
        self.in_flight -= 1

    def is_idle(self, now: float) -> bool:
        """Returns whether the meter can be deleted without loss: no call in flight, no budget, and a full burst."""
        if self.limit.rate is not None:
            self._refill(now, self.limit.rate)
        return not (self.in_flight or self.limit.is_budget or (self.limit.rate is not None and self.tokens < self._burst_size()))

    def _burst_size(self) -> float:
        return self.limit.burst or max(1.0, self.limit.rate or 1.0)

    def _refill(self, now: float, rate: float) -> None:
        self.tokens = min(self._burst_size(), self.tokens + (now - self.filled_at) * rate)
        self.filled_at = now

    def describe_scope(self) -> str:
        """Returns the scope of the limit, for the text of a refusal."""
        return _scope_of(self.limit)


class RunBudget(NamedTuple):
    """What each run that one budget counts may cost, in millionths. `scope` names the budget in refusals."""

    name: str
    most: int
    scope: str


class RefusalReport(NamedTuple):
    """Identifies refusals that the log and the audit report as one record with a count."""

    tenant: str
    owner: str
    actor: str
    reason: str
    limit: str


class CallLimits:
    """Holds all meters of this process. Each check is synchronous, so no other call runs within it. Tenants share no meter."""

    def __init__(self, limits: Sequence[Limit], now: Callable[[], float], unix_now: Callable[[], float]) -> None:
        """`now` returns seconds of the process's clock, `unix_now` seconds since 1970."""
        self._limits = tuple(limits)
        self._now = now
        self._unix_now = unix_now
        self._meters: dict[MeterKey, Meter] = {}
        self._meters_by_caller: dict[str, dict[str, tuple[Meter, ...]]] = {}
        self._spent_today: Mapping[tuple[str, str], tuple[int, int]] = {}
        self._cost_limits = tuple((at, limit) for at, limit in enumerate(limits) if limit.cost_per_day is not None)
        self._run_limits = tuple(limit for limit in limits if limit.cost_per_run is not None)
        self.has_cost_budget = bool(self._cost_limits or self._run_limits)
        self._limits_size = any(limit.max_bytes is not None for limit in limits)
        self.refusals: Counter[RefusalReport] = Counter()

    @property
    def limits(self) -> tuple[Limit, ...]:
        return self._limits

    @property
    def has_budget(self) -> bool:
        """Returns whether any limit is a daily budget, which is stored in the database."""
        return any(limit.is_budget for limit in self._limits)

    def acquire(self, caller: Caller, act: Act, payload: bytes | Message) -> tuple[Meter, ...]:
        """Counts a call on every meter that applies and returns these meters; the caller frees each one when the call ends.

        Raises LimitReached or PayloadTooLarge if one limit does not allow the call. Then no meter has counted it.
        """
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
        """Counts a refusal; the log and the audit report all equal refusals together."""
        self._count_refusal(caller.principal.owner_key, caller.delegation.actor, error)

    def count_overload(self, owner: str, count: int) -> None:
        """Counts requests of `owner` that were refused before they were read, because the process is overloaded."""
        report = RefusalReport(owner.partition("|")[0], owner, "", "Overloaded", "requests that the process can serve in time")
        if report in self.refusals or len(self.refusals) < REPORTED_MAX:
            self.refusals[report] += count

    def acquire_concurrency(self, caller: Caller, act: Act) -> tuple[Meter, ...]:
        """Takes only a concurrency place, for a call whose rate and budget were counted before it waited.

        Raises TooManyCalls if a limit of concurrent calls is reached. Then no place is taken.
        """
        meters = self._meters_for(caller, act)
        for meter in meters:
            meter.check_concurrency()
        for meter in meters:
            meter.in_flight += 1
        return meters

    def count_request(self, caller: Caller) -> None:
        """Counts a request to the HTTP API. Only rate limits of callers, without a callee, apply. Raises RateLimited."""
        self.count_request_of(caller.principal.owner_key, caller.delegation.actor)

    def count_request_of(self, owner: str, actor: str) -> None:
        """Counts a request to the HTTP API before a Caller exists. `owner` is tenant|issuer|subject. Raises RateLimited."""
        request_limits = [(at, limit) for at, limit in enumerate(self._limits) if limit.rate is not None and limit.who and not limit.what]
        meters = [
            self._find_or_create_meter(at, owner, subject, "")
            for at, limit in request_limits
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
            return  # concurrency and budgets limit calls, not requests to the API
        for meter in meters:
            meter.tokens -= 1

    def cost_meters(self, owner: str, actor: str, act: Act, workflows: Sequence[Registration] = ()) -> tuple[Meter, ...]:
        """Returns the meters whose daily costs a call of this user and acting agent counts in. `owner` is tenant|issuer|subject.

        `workflows` are those in the chain of the call.
        """
        found: list[Meter] = []
        for at, limit in self._cost_limits:
            subject = limit.subject_of(owner, actor)
            if subject is None:
                continue
            if limit.is_of_workflow:
                callees = [each.name for each in workflows if limit.counts_workflow(each.name)]
            else:
                callees = [callee for callee in (limit.callee_of(act),) if callee is not None]
            found += (self._find_or_create_meter(at, owner, subject, callee) for callee in callees)
        return tuple(found)

    def run_budgets(self, owner: str, actor: str, workflow: str) -> tuple[RunBudget, ...]:
        """Returns the budgets that each run of a workflow has for this user and acting agent."""
        return tuple(
            RunBudget(name_of_budget(limit.who, limit.what, subject, workflow), round(limit.cost_per_run * MILLION), _scope_of(limit))
            for limit in self._run_limits
            if limit.cost_per_run is not None
            and limit.counts_workflow(workflow)
            and (subject := limit.subject_of(owner, actor)) is not None
        )

    def unwritten_meters(self) -> list[Meter]:
        """Returns the budget meters with calls that are not in the database yet."""
        return [meter for meter in self._meters.values() if meter.unwritten_calls]

    def restore_spent(self, spent: Mapping[tuple[str, str], tuple[int, int]]) -> None:
        """Sets what all processes have spent today: calls and cost by tenant and meter name."""
        self._spent_today = spent
        for meter in self._meters.values():
            if meter.limit.is_budget:
                meter.calls, meter.cost = spent.get((meter.tenant, meter.name), (0, 0))

    def sweep(self) -> None:
        """Deletes idle meters."""
        now = self._now()
        self._meters_by_caller.clear()
        self._meters = {key: meter for key, meter in self._meters.items() if not meter.is_idle(now)}

    def _check_meters(self, meters: tuple[Meter, ...]) -> None:
        if len(meters) == 1 and meters[0].needs_no_clock:  # the usual case: reads no clock
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
            name = name_of_budget(limit.who, limit.what, subject, callee)
            meter = self._meters[key] = Meter(limit, key.tenant, name, self._now())
            if limit.is_budget:
                meter.calls, meter.cost = self._spent_today.get((key.tenant, name), (0, 0))
        return meter

    def take_refusals(self) -> Counter[RefusalReport]:
        """Returns the counts of refusals and resets them."""
        taken, self.refusals = self.refusals, Counter()
        return taken

    def _count_refusal(self, owner: str, actor: str, error: Exception) -> None:
        limit = error.summary if isinstance(error, LimitReached) else str(error)
        report = RefusalReport(owner.partition("|")[0], owner, actor, type(error).__name__, limit)
        if report in self.refusals or len(self.refusals) < REPORTED_MAX:
            self.refusals[report] += 1


def _scope_of(limit: Limit) -> str:
    return " for ".join(filter(None, (limit.who, limit.what))) or "all together"


def name_of_budget(who: str, what: str, subject: str, callee: str) -> str:
    """The name of a budget in the database."""
    return _encode_name([who, what, subject, callee]).decode()


def _check_size(meters: tuple[Meter, ...], payload: bytes | Message) -> None:
    size = -1
    for meter in meters:
        most = meter.limit.max_bytes
        if most is None:
            continue
        if size < 0:
            size = len(payload) if isinstance(payload, bytes) else len(encode(payload))
        if size > most:
            field = "arguments" if isinstance(payload, bytes) else "message"
            raise PayloadTooLarge(field, f"has {size} bytes; this call takes at most {most} bytes")


def seconds_of_day_left(unix_now: float) -> float:
    """Returns the seconds until midnight, UTC."""
    return DAY_SECONDS - unix_now % DAY_SECONDS


def release(shares: Sequence[Any]) -> None:
    """Frees every meter, slot or share that a call holds."""
    for share in shares:
        share.free()
