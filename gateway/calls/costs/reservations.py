"""Reservations: what a call may cost is taken from budgets in the commit that grants it, and settled in the commit of its end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, NoReturn

import msgspec
import structlog
from sqlalchemy import Connection, Row, select

from gateway.calls.costs.entries import EXPIRED, CostEntry
from gateway.calls.costs.reports.levels import forget_sums_of
from gateway.calls.limits.budgets import BUDGETS_LOCK
from gateway.calls.limits.meters import BudgetSpent, Meter, RunBudgetSpent, seconds_of_day_left
from gateway.storage.batch import Batch
from gateway.storage.tables import budgets, reservations, run_budgets
from policies.delegation.rulings import Grant
from registry.cards.prices import format_price

TOOL_CALL_SECONDS: Final = 3600.0  # after which the reservation of a tool call expires; a call with its questions takes less
TURN_MARGIN_SECONDS: Final = 600.0  # after a turn's deadline, until its reservation expires
RUN_RETRY_SECONDS: Final = 60.0  # after which a retry may find that calls at work have given something back
RUN_ADVICE: Final = (
    "The workflow may catch this error (type budget-spent). To let the run cost more, publish its document with a higher "
    "`budget.perRun`, or have an operator raise `cost_per_run`."
)
SECONDS_MAX: Final = 8 * 86_400.0  # of a reservation; a turn takes a week at most
_TAKE = (
    "INSERT INTO budgets (tenant, day, name, calls, cost, reserved) VALUES (?, ?, ?, 0, 0, ?) "
    "ON CONFLICT (tenant, day, name) DO UPDATE SET reserved = budgets.reserved + excluded.reserved "
    "WHERE budgets.cost + budgets.reserved + excluded.reserved <= ?"
)
_SETTLE = "UPDATE budgets SET reserved = reserved - ?, cost = cost + ? WHERE tenant = ? AND day = ? AND name = ?"
_TAKE_OF_RUN = (
    "INSERT INTO run_budgets (tenant, run_id, name, cost, reserved, most) VALUES (?, ?, ?, 0, ?, ?) "
    "ON CONFLICT (tenant, run_id, name) DO UPDATE SET reserved = run_budgets.reserved + excluded.reserved, most = excluded.most "
    "WHERE run_budgets.cost + run_budgets.reserved + excluded.reserved <= excluded.most"
)
_SETTLE_OF_RUN = "UPDATE run_budgets SET reserved = reserved - ?, cost = cost + ? WHERE tenant = ? AND run_id = ? AND name = ?"
_CHARGE_RUN = (
    "INSERT INTO run_budgets (tenant, run_id, name, cost, reserved, most) "
    "SELECT tenant, id, ?, ?, 0, ? FROM tasks WHERE tenant = ? AND id = ? "
    "ON CONFLICT (tenant, run_id, name) DO UPDATE SET cost = run_budgets.cost + excluded.cost"
)
_CHARGE = (
    "INSERT INTO budgets (tenant, day, name, calls, cost, reserved) VALUES (?, ?, ?, 0, ?, 0) "
    "ON CONFLICT (tenant, day, name) DO UPDATE SET cost = budgets.cost + excluded.cost"
)
_DELETE = "DELETE FROM reservations WHERE tenant = ? AND id = ?"
_FORGET_EXPIRED = "DELETE FROM costs WHERE tenant = ? AND id = ? AND quarantined = ?"
log = structlog.get_logger()


class Share(NamedTuple):
    """What a call takes of one budget. Amounts are millionths of the currency.

    `most` is what the budget has for a day, or with a `run_id` for that run.
    """

    name: str
    amount: int
    most: int
    run_id: str = ""


class BudgetShare(NamedTuple):
    """A share, and what its refusal says. `meter` knows what is left of a budget for a day; None: only the database knows it."""

    share: Share
    scope: str  # names the budget
    meter: Meter | None = None


class Shortage(NamedTuple):
    """A budget that has no room: what calls have cost, and what is reserved for calls that have not ended."""

    share: Share
    cost: int
    reserved: int

    @property
    def left(self) -> int:
        return max(0, self.share.most - self.cost - self.reserved)


class CallPlace(NamedTuple):
    """Where the reservation of a call is found: by the task of its turn, or by its decision where it has no task."""

    tenant: str
    decision_id: str
    task_id: str


class StoredEntry(msgspec.Struct, frozen=True):
    """The cost entry of a call that has not ended, and the task that its cost belongs to."""

    entry: CostEntry
    task_id: str


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one call takes from the budgets of its caller, its callee and the runs above it, once its Grant is recorded.

    `report` counts a refusal for the audit. `now` returns microseconds since 1970, `clock` the seconds that meters use.
    """

    shares: tuple[BudgetShare, ...]
    amount: int
    currency: str
    entry_of: Callable[[Grant], CostEntry]
    report: Callable[[Exception], None]
    now: Callable[[], int]
    clock: Callable[[], float]

    def check_known_room(self) -> None:
        """Raises BudgetSpent where the process knows that a budget has no room. Most calls that are refused end here."""
        clock = self.clock()
        for budget in self.shares:
            if (meter := budget.meter) is None:
                continue
            taken, charged = (meter.taken, meter.taken_by_ended) if clock < meter.taken_until else (0, 0)
            known, charged = max(meter.cost, taken), max(meter.cost, charged)
            if known + budget.share.amount > budget.share.most:
                raise self._refusal(budget, Shortage(budget.share, charged, known - charged))

    def take(self, batch: Batch, grant: Grant, task_id: str = "", deadline: float | None = None) -> BudgetSpent | None:
        """Reserves in this transaction, or changes nothing and returns the refusal.

        `deadline` is the end of the turn in seconds since 1970; the reservation expires a while after it. None: of a tool call.
        """
        decision, tenant, now = grant.decision, grant.delegation.principal.tenant, self.now()
        day = day_of(now)
        shortage = take_shares(batch, tenant, day, [budget.share for budget in self.shares])
        if shortage is not None:
            short = next(budget for budget in self.shares if budget.share == shortage.share)
            if short.meter is not None:
                short.meter.note_taken(shortage.cost, shortage.reserved, self.clock())
            return self._refusal(short, shortage)
        stored = StoredEntry(self.entry_of(grant), task_id or decision.task_id)
        batch.add(
            reservations,
            {
                "tenant": tenant,
                "id": decision.id,
                "task_id": task_id,
                "day": day,
                "shares": msgspec.json.encode([budget.share for budget in self.shares]).decode(),
                "entry": msgspec.json.encode(stored).decode(),
                "amount": self.amount,
                "until": _expiry(now, deadline),
            },
        )
        return None

    def _refusal(self, budget: BudgetShare, shortage: Shortage) -> BudgetSpent:
        share = shortage.share
        figures = (shortage.left, share.most, share.amount, shortage.cost, shortage.reserved)
        left, most, needed, spent, reserved = map(format_price, figures)
        of_what = f"run {share.run_id}" if share.run_id else "today"
        text = (
            f"The budget for {of_what} has no room for this call ({budget.scope}): {left} of {most} {self.currency} are left, and the call "
            f"reserves {needed}. {spent} are spent, and {reserved} are reserved by calls at work, which give back what they do not cost. "
        )
        if share.run_id:
            return RunBudgetSpent(text + RUN_ADVICE, RUN_RETRY_SECONDS, f"The budget for a run has no room for a call ({budget.scope}).")
        summary = f"The budget for today has no room for this call ({budget.scope})."
        return BudgetSpent(text + "The budget begins anew at midnight, UTC.", seconds_of_day_left(self.now() / 1_000_000), summary)


Reserving = Reservation | None


def reserve_before(
    work: Callable[[Batch], None], reservation: Reservation, grant: Grant, task_id: str = "", deadline: float | None = None
) -> Callable[[Batch], BudgetSpent | None]:
    """Returns `work` with the reservation before it. Where a budget has no room, it does nothing and returns the refusal."""

    def reserve_and_work(batch: Batch) -> BudgetSpent | None:
        if (spent := reservation.take(batch, grant, task_id, deadline)) is None:
            work(batch)
        return spent

    return reserve_and_work


def raise_spent(spent: BudgetSpent, reservation: Reserving) -> NoReturn:
    """Raises the refusal with which the database answered a reservation, and counts it for the audit."""
    if reservation is not None:
        reservation.report(spent)
    raise spent


def _expiry(now: int, deadline: float | None) -> int:
    """When a reservation expires, in microseconds since 1970."""
    seconds = TOOL_CALL_SECONDS if deadline is None else deadline - now / 1_000_000 + TURN_MARGIN_SECONDS
    return now + int(min(seconds, SECONDS_MAX) * 1_000_000)


def day_of(now_us: int) -> str:
    """The day of a budget, in UTC."""
    return datetime.fromtimestamp(now_us / 1_000_000, UTC).date().isoformat()


def take_shares(batch: Batch, tenant: str, day: str, shares: Sequence[Share]) -> Shortage | None:
    """Reserves all shares, or none and returns the budget that has no room. Runs before any other statement of its job."""
    batch.lock(BUDGETS_LOCK)
    taken: list[Share] = []
    for share in sorted(shares):
        if share.amount > share.most or not _take(batch, tenant, day, share):
            for each in taken:
                change_share(batch, (tenant, day), each, -each.amount, 0)
            return _shortage_of(batch.connection, tenant, day, share)
        taken.append(share)
    return None


def _take(batch: Batch, tenant: str, day: str, share: Share) -> int:
    """Reserves one share. Returns 0 where the budget has no room."""
    if share.run_id:
        return batch.run(_TAKE_OF_RUN, (tenant, share.run_id, share.name, share.amount, share.most))
    return batch.run(_TAKE, (tenant, day, share.name, share.amount, share.most))


def change_share(batch: Batch, place: tuple[str, str], share: Share, reserved: int, cost: int) -> None:
    """Adds to what is reserved and charged of one budget. `place` is a tenant and the day of a budget for a day."""
    tenant, day = place
    if share.run_id:
        batch.run(_SETTLE_OF_RUN, (-reserved, cost, tenant, share.run_id, share.name))
    else:
        batch.run(_SETTLE, (-reserved, cost, tenant, day, share.name))


def _shortage_of(connection: Connection, tenant: str, day: str, share: Share) -> Shortage:
    columns, of_run = budgets.c, run_budgets.c
    query = select(columns.cost, columns.reserved).where(columns.tenant == tenant, columns.day == day, columns.name == share.name)
    if share.run_id:
        same = (of_run.tenant == tenant, of_run.run_id == share.run_id, of_run.name == share.name)
        query = select(of_run.cost, of_run.reserved).where(*same)
    row = connection.execute(query).first()
    return Shortage(share, *((row.cost, row.reserved) if row is not None else (0, 0)))


def settle(batch: Batch, place: CallPlace, cost: int | None) -> int | None:
    """Gives back what was reserved for a call, charges what it cost, and returns that; None where nothing was reserved.

    `cost` is None where it is unknown: then the call is charged what was reserved. An expired reservation was charged already, and what
    the call really cost takes the place of that.
    """
    batch.lock(BUDGETS_LOCK)
    columns = reservations.c
    match = columns.task_id == place.task_id if place.task_id else columns.id == place.decision_id
    query = select(reservations).where(columns.tenant == place.tenant, match).order_by(columns.until.desc())
    charged: int | None = None
    for row in batch.connection.execute(query).all():
        one = cost if charged is None else None  # a task has one turn at a time, so an older reservation is of a turn that was lost
        settle_row(batch, row, one)
        charged = (charged or 0) + (row.amount if one is None else one)
    return charged


def settle_row(batch: Batch, row: "Row[Any]", cost: int | None) -> None:
    """Gives back one reservation, and charges `cost`, or for None what was reserved."""
    has_expired = row.charged_at is not None
    for share in shares_of(row):
        charged = share.amount if cost is None else cost
        change = (0, charged - share.amount) if has_expired else (-share.amount, charged)
        change_share(batch, (row.tenant, row.day), share, *change)
    batch.run(_DELETE, (row.tenant, row.id))
    if has_expired:
        forget_sums_of(batch, row.tenant, row.task_id or row.id)
        batch.run(_FORGET_EXPIRED, (row.tenant, row.task_id or row.id, EXPIRED))


def shares_of(row: "Row[Any]") -> list[Share]:
    """The shares of a stored reservation, in the order in which rows of budgets are changed; none of a row that can't be read.

    Such a row stops neither the end of its call nor the expiry of other reservations. What it reserved of a day is free on the next day.
    """
    try:
        return sorted(msgspec.json.decode(row.shares, type=list[Share]))
    except (msgspec.MsgspecError, UnicodeError) as error:
        log.error("reservation_unreadable", tenant=row.tenant, reservation=row.id, error=str(error))
        return []


def charge_unreserved(batch: Batch, tenant: str, day: str, shares: Sequence[Share], cost: int) -> None:
    """Charges a call for which nothing was reserved, such as a turn that an agent began by itself."""
    batch.lock(BUDGETS_LOCK)
    for share in sorted(shares):
        if share.run_id:
            batch.run(_CHARGE_RUN, (share.name, cost, share.most, tenant, share.run_id))
        else:
            batch.run(_CHARGE, (tenant, day, share.name, cost))
