"""Agents and servers that are down: what callers are told, and which ones callers asked for."""

from collections.abc import Callable
from typing import Final

from registry.cards.card import Registration
from registry.health.checks import EntryKey

AGAIN_SECONDS: Final = 2.0  # seconds between two checks of an entry that is down and in demand, and the Retry-After for callers


class NotReachable(Exception):
    """A visible agent or server is down, or an operator holds a server back.

    `name` is that of the agent or server, empty where the raiser does not know it.
    `retry_after`: seconds after which the same call may succeed; 0 where an operator has to decide.
    """

    def __init__(self, name: str = "", retry_after: float = 0.0) -> None:
        super().__init__(f"{f'`{name}`' if name else 'It'} is not reachable now; try again later.")
        self.retry_after = int(retry_after)


class Absences:
    """The entries that are down and that callers asked for, to be checked again within seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` counts seconds, monotonically."""
        self._now = now
        self._asked: set[EntryKey] = set()
        self._looked: dict[EntryKey, float] = {}

    def refuse(self, entry: Registration) -> NotReachable:
        """Records that a caller asked for an entry that is down, and returns the exception to raise."""
        self._asked.add((entry.tenant, entry.name))
        return NotReachable(entry.name, AGAIN_SECONDS)

    def take(self) -> list[EntryKey]:
        """The entries to be checked now: asked for, and not checked within AGAIN_SECONDS."""
        now = self._now()
        self._looked = {key: at for key, at in self._looked.items() if now - at < AGAIN_SECONDS}
        due = sorted(self._asked - self._looked.keys())
        self._asked -= set(due)
        self._looked |= dict.fromkeys(due, now)
        return due
