"""Agents and servers that do not answer now: what callers are told of them, and which of them callers asked for."""

from collections.abc import Callable
from typing import Final

from registry.cards.card import Registration
from registry.health.checks import EntryKey

AGAIN_SECONDS: Final = 2.0  # between two looks at one that is down and asked for; callers are told to come back after as long


class NotReachable(Exception):
    """An agent or a server that the caller may know of is down, or a server is held back by an operator.

    `retry_after`: seconds after which the same call may succeed; 0 where that is for an operator to decide.
    """

    def __init__(self, retry_after: float = 0.0) -> None:
        super().__init__()
        self.retry_after = int(retry_after)


class Absences:
    """Which of those that are down callers asked for, so that they are looked at again within seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` counts seconds of the process."""
        self._now = now
        self._asked: set[EntryKey] = set()
        self._looked: dict[EntryKey, float] = {}

    def refuse(self, entry: Registration) -> NotReachable:
        """Notes that a caller asked for one that is down; returns what to raise."""
        self._asked.add((entry.tenant, entry.name))
        return NotReachable(AGAIN_SECONDS)

    def take(self) -> list[EntryKey]:
        """Those that are to be looked at now: asked for since, and not looked at within AGAIN_SECONDS."""
        now = self._now()
        self._looked = {key: at for key, at in self._looked.items() if now - at < AGAIN_SECONDS}
        due = sorted(self._asked - self._looked.keys())
        self._asked -= set(due)
        self._looked |= dict.fromkeys(due, now)
        return due
