"""What is left of budgets: those for a day, and those of runs, as their owners and operators see them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from gateway.calls.costs.reports.queries import in_byte_order
from gateway.calls.costs.run_shares import OF_DOCUMENT
from gateway.calls.limits.limit import WORKFLOW, Limit
from gateway.calls.limits.meters import MILLION, name_of_budget
from gateway.storage.paging import BadCursor
from gateway.storage.tables import ENDED_STATES, budgets, run_budgets, tasks
from registry.cards.budgets import budget_in
from registry.cards.card import WORKFLOW_KIND, Family
from registry.cards.prices import format_price
from registry.store import Registry

NAMES_MAX: Final = 500  # in one query
SEPARATOR: Final = " "  # in a cursor, between a run and the name of its budget


class BudgetPeriod(StrEnum):
    """What a budget is for."""

    DAY = "day"
    RUN = "run"


class BudgetOwner(Struct, frozen=True):
    """Selects budgets of a tenant, and unless `owner` (tenant|issuer|subject) is empty of one person. `txn` is the transaction of runs."""

    tenant: str
    owner: str = ""
    actor: str = ""
    txn: str = ""


class BalancePage(Struct, frozen=True):
    """Budgets after `cursor`, at most `limit`."""

    cursor: str = ""
    limit: int = 50


class Balance(Struct, frozen=True):
    """A budget and what of it is spent and reserved, in millionths. `most` is None where the budget is no longer set."""

    name: str
    most: int | None
    spent: int = 0
    reserved: int = 0
    run_id: str = ""

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """The members `who` and `what` of the limit, the counted person or agent, and the agent, server, tool or workflow."""
        return msgspec.json.decode(self.name, type=tuple[str, str, str, str])

    def to_document(self, currency: str, now_us: int) -> dict[str, Any]:
        """The balance as /api shows it."""
        who, what, subject, callee = self.parts
        left = None if self.most is None else max(0, self.most - self.spent - self.reserved)
        amounts = {"budget": self.most, "spent": self.spent, "reserved": self.reserved, "left": left}
        is_of_document = who == OF_DOCUMENT
        return {
            "period": (BudgetPeriod.RUN if self.run_id else BudgetPeriod.DAY).value,
            "run": self.run_id or None,
            "who": "" if is_of_document else who,
            "what": what,
            "subject": subject,
            "callee": callee,
            "set_by": "document" if is_of_document else "operator",
            **{name: None if value is None else format_price(value) for name, value in amounts.items()},
            "currency": currency,
            "resets": None if self.run_id else _next_day(now_us).isoformat().replace("+00:00", "Z"),
        }


def _next_day(now_us: int) -> datetime:
    return (datetime.fromtimestamp(now_us / 1_000_000, UTC) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


class DayBudgets:
    """The budgets for a day: of the limits that operators set, and of the workflows whose documents have one."""

    def __init__(self, limits: Iterable[Limit], registry: Registry) -> None:
        self._limits = [limit for limit in limits if limit.cost_per_day is not None]
        self._registry = registry

    def read(self, connection: Connection, whose: BudgetOwner, day: str, page: BalancePage) -> list[Balance]:
        """One page and the first balance of the next. For an owner, also budgets of which nothing is spent today."""
        documents = self._documents_of(whose.tenant)
        columns = budgets.c
        query = select(columns.name, columns.cost, columns.reserved).where(columns.tenant == whose.tenant, columns.day == day)
        if not whose.owner:
            name = in_byte_order(connection, columns.name)
            rows: Iterable[Any] = connection.execute(query.where(name > page.cursor).order_by(name))
            found = (each for row in rows if (each := self._balance_of(row, documents)) is not None)
            return list(islice(found, page.limit + 1))
        always, sometimes = self._budgets_of(whose)
        always |= {_name_of_document(name): most for name, most in documents.items()}
        balances = {name: Balance(name, most) for name, most in always.items()}
        for first in range(0, len(names := [*always, *sometimes]), NAMES_MAX):
            for row in connection.execute(query.where(columns.name.in_(names[first : first + NAMES_MAX]))):
                if (each := self._balance_of(row, documents)) is not None:
                    balances[row.name] = each
        return sorted((each for each in balances.values() if each.name > page.cursor), key=_byte_key)[: page.limit + 1]

    def _balance_of(self, row: Any, documents: Mapping[str, int]) -> Balance | None:
        """The balance of a row; None for a row that only counts calls."""
        who, what, _, callee = Balance(row.name, None).parts
        limits = (_most(limit) for limit in self._limits if (limit.who, limit.what) == (who, what))
        most = documents.get(callee) if who == OF_DOCUMENT else next(limits, None)
        return Balance(row.name, most, row.cost, row.reserved) if most is not None or row.cost or row.reserved else None

    def _budgets_of(self, whose: BudgetOwner) -> tuple[dict[str, int], list[str]]:
        """The budgets of an owner with one callee, by name; and the names of those that each callee has one of, which may be unused."""
        single: dict[str, int] = {}
        many: list[str] = []
        for limit in self._limits:
            subject = limit.subject_of(whose.owner, whose.actor)
            callee = limit.what.partition(":")[2]
            if subject is None:
                continue
            if "*" in callee:
                many += (name_of_budget(limit.who, limit.what, subject, each) for each in self._callees_of(whose.tenant, limit))
            else:
                single[name_of_budget(limit.who, limit.what, subject, callee)] = _most(limit)
        return single, many

    def _callees_of(self, tenant: str, limit: Limit) -> Iterator[str]:
        """Every agent, server, tool or workflow that a limit with a `*` counts."""
        kind, _, wanted = limit.what.partition(":")
        for entry in self._registry.list(tenant):
            if kind == "tool":
                names = (f"{entry.name}.{tool.name}" for tool in entry.tools)
                yield from (name for name in names if wanted == "*" or name.startswith(wanted.removesuffix("*")))
            elif kind == WORKFLOW:
                yield from (entry.name,) if entry.kind == WORKFLOW_KIND else ()
            elif entry.family is (Family.AGENT if kind == "agent" else Family.SERVER):
                yield entry.name

    def _documents_of(self, tenant: str) -> dict[str, int]:
        """The millionths that documents of workflows have for a day, by the name of the workflow."""
        workflows = (entry for entry in self._registry.list(tenant, Family.AGENT) if entry.kind == WORKFLOW_KIND)
        return {entry.name: most for entry in workflows if (most := budget_in(entry.facts).per_day) is not None}


def _byte_key(balance: Balance) -> bytes:
    return balance.name.encode()


def _most(limit: Limit) -> int:
    return round((limit.cost_per_day or 0) * MILLION)


def _name_of_document(workflow: str) -> str:
    return name_of_budget(OF_DOCUMENT, f"{WORKFLOW}:{workflow}", "", workflow)


def read_run_balances(connection: Connection, whose: BudgetOwner, page: BalancePage) -> list[Balance]:
    """The budgets of runs that have not ended: one page and the first of the next. Raises BadCursor."""
    columns = run_budgets.c
    of_run, key = (in_byte_order(connection, column) for column in (columns.run_id, columns.name))
    query = select(columns.run_id, columns.name, columns.cost, columns.reserved, columns.most)
    query = query.join(tasks, (tasks.c.tenant == columns.tenant) & (tasks.c.id == columns.run_id))
    query = query.where(columns.tenant == whose.tenant, tasks.c.state.not_in(ENDED_STATES))
    if whose.owner:
        query = query.where(tasks.c.owner == whose.owner)
    if whose.txn:
        query = query.where(tasks.c.txn == whose.txn)
    if page.cursor:
        run_id, separator, name = page.cursor.partition(SEPARATOR)
        if not separator:
            raise BadCursor
        query = query.where((of_run > run_id) | ((of_run == run_id) & (key > name)))
    rows = connection.execute(query.order_by(of_run, key).limit(page.limit + 1))
    return [Balance(row.name, row.most, row.cost, row.reserved, row.run_id) for row in rows]


def cursor_after(shown: Sequence[Balance]) -> str:
    """The cursor of the page after these."""
    last = shown[-1]
    return f"{last.run_id}{SEPARATOR}{last.name}" if last.run_id else last.name
