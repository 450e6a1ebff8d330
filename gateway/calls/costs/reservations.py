"""Reservations: what a call may cost is taken from daily budgets in the commit that grants it, and settled in the commit of its end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, NoReturn

import msgspec
from sqlalchemy import Connection, Row, select

from gateway.calls.costs.entries import EXPIRED, CostEntry
from gateway.calls.limits.budgets import BUDGETS_LOCK
from gateway.calls.limits.meters import BudgetSpent, Meter, seconds_of_day_left
from gateway.storage.batch import Batch
from gateway.storage.tables import budgets, reservations
from policies.delegation.rulings import Grant
from registry.cards.prices import format_price

TOOL_CALL_SECONDS: Final = 3600.0  # after which the reservation of a tool call expires; a call with its questions takes less
TURN_MARGIN_SECONDS: Final = 600.0  # after a turn's deadline, until its reservation expires
SECONDS_MAX: Final = 8 * 86_400.0  # of a reservation; a turn takes a week at most
_TAKE = (
    "INSERT INTO budgets (tenant, day, name, calls, cost, reserved) VALUES (?, ?, ?, 0, 0, ?) "
    "ON CONFLICT (tenant, day, name) DO UPDATE SET reserved = budgets.reserved + excluded.reserved "
    "WHERE budgets.cost + budgets.reserved + excluded.reserved <= ?"
)
_SETTLE = "UPDATE budgets SET reserved = reserved - ?, cost = cost + ? WHERE tenant = ? AND day = ? AND name = ?"
_CHARGE = (
    "INSERT INTO budgets (tenant, day, name, calls, cost, reserved) VALUES (?, ?, ?, 0, ?, 0) "
    "ON CONFLICT (tenant, day, name) DO UPDATE SET cost = budgets.cost + excluded.cost"
)
_DELETE = "DELETE FROM reservations WHERE tenant = ? AND id = ?"
_FORGET_EXPIRED = "DELETE FROM costs WHERE tenant = ? AND id = ? AND quarantined = ?"


class Share(NamedTuple):
    """What a call takes of one budget. Amounts are millionths of the currency; `most` is what the budget has for a day."""

    name: str
    amount: int
    most: int


class Shortage(NamedTuple):
    """A budget that has no room: what calls have cost, and what is reserved for calls that have not ended."""

    share: Share
    cost: int
    reserved: int


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
    """What one call takes from the daily budgets of its caller and callee, once its Grant is recorded.

    `report` counts a refusal for the audit. `now` returns microseconds since 1970, `clock` the seconds that meters use.
    """

    shares: tuple[tuple[Meter, Share], ...]
    amount: int
    currency: str
    entry_of: Callable[[Grant], CostEntry]
    report: Callable[[Exception], None]
    now: Callable[[], int]
    clock: Callable[[], float]

    def check_known_room(self) -> None:
        """Raises BudgetSpent where the process knows that a budget has no room. Most calls that are refused end here."""
        clock = self.clock()
        for meter, share in self.shares:
            known = max(meter.cost, meter.taken if clock < meter.taken_until else 0)
            if known + share.amount > share.most:
                raise self._refusal(meter, share, share.most - known)

    def take(self, batch: Batch, grant: Grant, task_id: str = "", deadline: float | None = None) -> BudgetSpent | None:
        """Reserves in this transaction, or changes nothing and returns the refusal.

        `deadline` is the end of the turn in seconds since 1970; the reservation expires a while after it. None: of a tool call.
        """
        decision, tenant, now = grant.decision, grant.delegation.principal.tenant, self.now()
        day = day_of(now)
        shortage = take_shares(batch, tenant, day, [share for _, share in self.shares])
        if shortage is not None:
            meter = next(meter for meter, share in self.shares if share == shortage.share)
            meter.note_taken(shortage.cost + shortage.reserved, self.clock())
            return self._refusal(meter, shortage.share, shortage.share.most - shortage.cost - shortage.reserved)
        stored = StoredEntry(self.entry_of(grant), task_id or decision.task_id)
        batch.add(
            reservations,
            {
                "tenant": tenant,
                "id": decision.id,
                "task_id": task_id,
                "day": day,
                "shares": msgspec.json.encode([share for _, share in self.shares]).decode(),
                "entry": msgspec.json.encode(stored).decode(),
                "amount": self.amount,
                "until": _expiry(now, deadline),
            },
        )
        return None

    def _refusal(self, meter: Meter, share: Share, left: int) -> BudgetSpent:
        left_text, most, needed = (format_price(max(0, each)) for each in (left, share.most, share.amount))
        summary = f"The budget for today has no room for this call ({meter.describe_scope()})"
        text = (
            f"{summary}: {left_text} of {most} {self.currency} are left, and the call reserves {needed}. "
            "Calls at work give back what they do not cost. The budget begins anew at midnight, UTC."
        )
        return BudgetSpent(text, seconds_of_day_left(self.now() / 1_000_000), f"{summary}.")


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
        if share.amount > share.most or not batch.run(_TAKE, (tenant, day, share.name, share.amount, share.most)):
            for each in taken:
                batch.run(_SETTLE, (each.amount, 0, tenant, day, each.name))
            return _shortage_of(batch.connection, tenant, day, share)
        taken.append(share)
    return None


def _shortage_of(connection: Connection, tenant: str, day: str, share: Share) -> Shortage:
    columns = budgets.c
    query = select(columns.cost, columns.reserved).where(columns.tenant == tenant, columns.day == day, columns.name == share.name)
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
        change = (0, charged - share.amount) if has_expired else (share.amount, charged)
        batch.run(_SETTLE, (*change, row.tenant, row.day, share.name))
    batch.run(_DELETE, (row.tenant, row.id))
    if has_expired:
        batch.run(_FORGET_EXPIRED, (row.tenant, row.task_id or row.id, EXPIRED))


def shares_of(row: "Row[Any]") -> list[Share]:
    """The shares of a stored reservation, in the order in which rows of budgets are changed."""
    return sorted(msgspec.json.decode(row.shares, type=list[Share]))


def charge_unreserved(batch: Batch, tenant: str, day: str, names: Sequence[str], cost: int) -> None:
    """Charges a call for which nothing was reserved, such as a turn that an agent began by itself."""
    batch.lock(BUDGETS_LOCK)
    for name in sorted(names):
        batch.run(_CHARGE, (tenant, day, name, cost))
