"""Bars of amounts: one row for each person, agent or day, with its bar on a common scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

WIDTH = 1000.0  # units of the longest bar


@dataclass(frozen=True, slots=True)
class Bar:
    """One row: the document of the group, and the length of its bar."""

    group: Mapping[str, Any]
    width: float


def draw_bars(groups: Sequence[Mapping[str, Any]]) -> list[Bar]:
    """Returns the bars of groups of costs. A group without a known amount has no bar."""
    amounts = [Decimal(group["amount"] or 0) for group in groups]
    longest = max(amounts, default=Decimal(0))
    return [
        Bar(group, round(float(amount / longest) * WIDTH, 1) if longest else 0.0) for group, amount in zip(groups, amounts, strict=True)
    ]
