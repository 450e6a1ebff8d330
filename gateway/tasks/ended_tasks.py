"""Ended tasks that were read lately. They never change, so that any process answers for them without the database."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from gateway.tasks.events.entries import TaskRecord

BYTES_MAX: Final = 16 << 20  # of all records
RECORD_BYTES_MAX: Final = 1 << 20  # a larger one is read each time
_ROW_BYTES, _EVENT_BYTES = 2000, 700  # of a record without its events, and of an event without the text of its body
_DECODED: Final = 4  # times the length of a body: what it takes once it is decoded


class _KnownTask(Struct):
    record: TaskRecord
    size: int


class PruningNotice:
    """Tells those who remember ended tasks that some were deleted."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[], None]] = []

    def subscribe(self, forget: Callable[[], None]) -> None:
        """Has `forget` called after each deletion, by any process."""
        self._subscribers.append(forget)

    def forget_tasks(self) -> None:
        for forget in self._subscribers:
            forget()


class EndedTasks:
    """Byte-bounded: the record that was not asked for longest goes first. For one event loop."""

    def __init__(self, pruning: PruningNotice | None = None) -> None:
        if pruning is not None:
            pruning.subscribe(self._forget_all)
        self._entries: OrderedDict[tuple[str, str, str], _KnownTask] = OrderedDict()
        self._bytes = 0
        self.generation = 0  # how often all records were forgotten

    def find(self, tenant: str, owner: str, task_id: str) -> TaskRecord | None:
        """Returns the record of an ended task of this owner, if it is known."""
        key = (tenant, owner, task_id)
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.record

    def keep(self, record: TaskRecord, generation: int) -> None:
        """Keeps the record of a task that has ended; leaves out others, and large ones.

        `generation` is that of the moment before the record was read: its task may have been deleted since.
        """
        row = record.row
        size = _ROW_BYTES + sum(_EVENT_BYTES + (1 + _DECODED) * len(event.body) for event in record.events)
        key = (row.tenant, row.owner, row.id)
        if generation != self.generation or not row.has_ended or size > RECORD_BYTES_MAX or key in self._entries:
            return
        self._entries[key] = _KnownTask(record, size)
        self._bytes += size
        while self._bytes > BYTES_MAX:
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= dropped.size

    def _forget_all(self) -> None:
        self._entries.clear()
        self._bytes = 0
        self.generation += 1
