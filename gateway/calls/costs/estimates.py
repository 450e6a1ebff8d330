"""Estimates: what a call may cost, by its price, or by what the last calls of the same agent or tool have cost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import Connection, func, select

from gateway.storage.database import Database
from gateway.storage.tables import costs
from policies.cache import BoundedCache
from registry.cards.card import WORKFLOW_KIND, Family, Registration

PAST_CALLS: Final = 20  # of one agent or tool, the newest
CACHED_TARGETS: Final = 10_000
CACHED_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ReservationBounds:
    """Amounts in millionths: of a turn of an agent about which nothing is known, and the most that an estimate reserves."""

    unknown: int = 10_000
    most: int = 10_000_000


class _Estimate(NamedTuple):
    amount: int
    is_known: bool  # from past calls


class CostEstimates:
    """Estimates what calls cost. `clock` counts seconds."""

    def __init__(self, database: Database, clock: Callable[[], float], bounds: ReservationBounds) -> None:
        self._database = database
        self._bounds = bounds
        self._cached: BoundedCache[tuple[str, str, str], _Estimate] = BoundedCache(CACHED_TARGETS, clock)

    async def estimate(self, target: Registration, tool: str) -> int:
        """The most that one of the last calls has cost, in millionths.

        A tool whose calls have never had a known cost counts as free; an agent then costs what the bounds say. Raises ReadFailed.
        """
        if target.kind == WORKFLOW_KIND:  # the steps of its runs have their own reservations
            return 0
        key = (target.tenant, target.name, tool)
        found = self._cached.get(key)
        if found is None:
            past = await self._database.read(lambda connection: _highest_of_past(connection, *key))
            unknown = self._bounds.unknown if target.family is Family.AGENT else 0
            found = _Estimate(unknown if past is None else past, is_known=past is not None)
            self._cached.put(key, found, CACHED_SECONDS)
        return min(found.amount, self._bounds.most)

    def learn(self, target: Registration, tool: str, amount: int) -> None:
        """Takes what a call has cost into account at once."""
        key = (target.tenant, target.name, tool)
        found = self._cached.get(key)
        if found is not None and (amount > found.amount or not found.is_known):
            self._cached.put(key, _Estimate(amount, is_known=True), CACHED_SECONDS)


def _highest_of_past(connection: Connection, tenant: str, target: str, tool: str) -> int | None:
    columns = costs.c
    same = (columns.tenant == tenant) & (columns.target == target) & (columns.tool == tool) & columns.amount.is_not(None)
    past = select(columns.amount).where(same).order_by(columns.at.desc()).limit(PAST_CALLS).subquery()
    highest = connection.execute(select(func.max(past.c.amount))).scalar()
    return None if highest is None else int(highest)
