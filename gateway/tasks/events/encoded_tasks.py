"""Tasks as lists show them, already encoded. A log never changes up to a number, so any process may reuse what it has encoded."""

from collections import OrderedDict
from typing import Final, NamedTuple

from msgspec import Raw

BYTES_MAX: Final = 16 << 20  # of all encoded tasks, with their keys
TASK_BYTES_MAX: Final = 64 << 10  # a larger one is encoded each time
_KEY_BYTES: Final = 500


class EncodedForm(NamedTuple):
    """What an encoded task shows: the events up to `last_seq`, with so many messages, and with artifacts or without."""

    tenant: str
    task_id: str
    last_seq: int
    history_length: int
    has_artifacts: bool


class EncodedTasks:
    """Byte-bounded: the task that was not asked for longest goes first. For one event loop.

    Only for tasks whose row was read and may be seen: an entry says nothing of who may see the task, and outlives a pruned one.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[EncodedForm, Raw] = OrderedDict()
        self._bytes = 0

    def find(self, form: EncodedForm) -> Raw | None:
        entry = self._entries.get(form)
        if entry is not None:
            self._entries.move_to_end(form)
        return entry

    def keep(self, form: EncodedForm, encoded: bytes) -> Raw:
        """Returns the encoded task, which is kept unless it is large."""
        raw = Raw(encoded)
        if len(encoded) > TASK_BYTES_MAX or form in self._entries:
            return raw
        self._entries[form] = raw
        self._bytes += _KEY_BYTES + len(encoded)
        while self._bytes > BYTES_MAX:
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= _KEY_BYTES + len(memoryview(dropped))
        return raw
