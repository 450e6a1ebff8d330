"""What a call will probably cost, before it is made: its price, or what the last calls of the same agent or tool have cost."""

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, select

from gateway.calls.costs.estimates import PAST_CALLS
from gateway.storage.tables import costs
from registry.cards.card import Registration
from registry.cards.prices import format_price

PRICE: Final = "price"
PAST: Final = "past-calls"
UNKNOWN: Final = "unknown"


class CostExpectation(Struct, frozen=True):
    """An amount that half of the past calls did not exceed, and the most that one has cost, in millionths; None where nothing is known."""

    amount: int | None
    most: int | None
    source: str  # price | past-calls | unknown
    calls: int = 0  # past calls of known cost that it rests on

    def to_document(self, currency: str) -> dict[str, Any]:
        """The expectation as /api shows it."""
        amounts = {name: None if value is None else format_price(value) for name, value in (("amount", self.amount), ("most", self.most))}
        return {**amounts, "currency": currency, "source": self.source, "calls": self.calls}


def read_expectation(connection: Connection, target: Registration, tool: str) -> CostExpectation:
    """What a call of an agent costs, or of a server's tool. The operator's price counts before past calls, as it does for real calls."""
    price = target.price_of(tool)
    if price is not None:
        return CostExpectation(price, price, PRICE)
    columns = costs.c
    same = (columns.tenant == target.tenant) & (columns.target == target.name) & (columns.tool == tool) & columns.amount.is_not(None)
    query = select(columns.amount).where(same).order_by(columns.at.desc()).limit(PAST_CALLS)
    past = sorted(int(amount) for amount in connection.execute(query).scalars())
    return CostExpectation(past[(len(past) - 1) // 2], past[-1], PAST, len(past)) if past else CostExpectation(None, None, UNKNOWN)


def add_up(expected: Sequence[CostExpectation], currency: str) -> dict[str, Any]:
    """The sum of what is known of several calls, and how many of them are unknown."""
    known = [each for each in expected if each.amount is not None]
    unknown = len(expected) - len(known)
    sums = [sum(getattr(each, name) or 0 for each in known) for name in ("amount", "most")]
    amount, most = (format_price(each) if known or not unknown else None for each in sums)
    return {"amount": amount, "most": most, "currency": currency, "unpriced": unknown}
