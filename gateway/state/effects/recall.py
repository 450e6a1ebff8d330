"""What this process knows of subjects that rest, so that most rulings on declared effects need no read.

Only what can't change without a change of the subject's version is kept: nothing under way, and no claim that its holder might renew. The
commit of a grant compares the version, so that outdated facts grant nothing. A refusal is ruled on again with facts that were read.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from gateway.state.claims.tables import COOLING
from gateway.state.effects.reading import FactRows
from policies.delegation.facts import FactNeeds

BYTES_MAX: Final = 4 << 20
ENTRY_BYTES_MAX: Final = 16 << 10
KEPT_US: Final = 300_000_000  # since the subject was read
_ROW_BYTES, _ENTRY_BYTES = 300, 1000  # of a row without its texts, and of an entry without its rows
Key = tuple[str, str]  # tenant and subject


class _Entry(Struct):
    rows: FactRows
    needs: FactNeeds
    size: int
    is_in_use: bool  # a ruling goes by it, and its effect has not ended


class RecalledSubjects:
    """Byte-bounded: the oldest entries go first. For one event loop."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._bytes = 0

    def recall(self, key: Key, needs: FactNeeds, now: int) -> FactRows | None:
        """What is known of a subject, for one ruling at a time; None where it has to be read."""
        entry = self._entries.get(key)
        if entry is None or entry.is_in_use or entry.needs != needs or now - entry.rows.now > KEPT_US:
            return None
        entry.is_in_use = True
        return entry.rows

    def keep(self, key: Key, rows: FactRows, needs: FactNeeds) -> None:
        """Keeps what a ruling has read, until its effect has ended."""
        known = self._entries.get(key)
        if known is not None and known.rows.version > rows.version:
            return
        self._store(key, rows, needs, is_in_use=True)

    def add_effect(self, key: Key, version: int, last: Sequence[Any]) -> None:
        """Adds an effect that a ruling by `version` has allowed, and that is done: `last` is its row. Else the entry stays in use."""
        entry = self._entries.get(key)
        if entry is None or entry.rows.version != version:
            return
        rows, same = entry.rows, list(last[:3])
        kept = [row for row in rows.last if list(row[:3]) != same]
        rows = FactRows(version + 1, rows.now, rows.values, [*kept, last], [], rows.claims)
        self._store(key, rows, entry.needs, is_in_use=False)

    def _store(self, key: Key, rows: FactRows, needs: FactNeeds, *, is_in_use: bool) -> None:
        self._drop(key)
        size = _ENTRY_BYTES + sum(_size_of(row) for row in (*rows.values, *rows.last)) + 2 * _ROW_BYTES * len(rows.claims)
        if not _can_rest(rows) or size > ENTRY_BYTES_MAX:
            return
        self._entries[key] = _Entry(rows, needs, size, is_in_use)
        self._bytes += size
        while self._bytes > BYTES_MAX:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self._bytes -= entry.size


def _can_rest(rows: FactRows) -> bool:
    """Whether nothing of it can change while the subject's version stays."""
    return not rows.under_way and not rows.has_tasks and all(claim.state == COOLING for claim in rows.claims)


def _size_of(row: Sequence[Any]) -> int:
    return _ROW_BYTES + sum(len(each) for each in row if isinstance(each, str))
