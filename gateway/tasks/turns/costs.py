"""The port through which turns record what they cost."""

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from adapters.contract import Call, Event
from gateway.storage.batch import Batch

WriteCost = Callable[[Batch, str, int], None]
"""Adds the cost of a turn to the commit of its ending, by its task and the number of the task's last event."""


class TurnCosts(Protocol):
    """What turns cost (gateway/calls/costs/ledger.py)."""

    has_budget: bool  # whether a turn may have a reservation, which its ending settles

    def pricing_of(self, call: Call, ending: Event) -> Coroutine[Any, Any, WriteCost] | None:
        """What prices a turn that ended; None, without any waiting, where nothing is to be stored."""
        ...


class NoCosts:
    """Stores no costs."""

    has_budget = False

    def pricing_of(self, call: Call, ending: Event) -> None:
        return None


NO_COSTS = NoCosts()
