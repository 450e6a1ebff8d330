"""One row per tenant: the number of its newest change, and what its values take up. Each change of the board locks it first.

So the changes of a tenant follow each other in all processes: the numbers of changes are in the order of commits, and a reader of the
feed never sees a number before a lower one.
"""

from typing import Final

from msgspec import Struct

from gateway.state.board.problems import BoardFull
from gateway.state.subjects.queries import run_query
from gateway.storage.batch import Batch

_LOCK: Final = (
    "INSERT INTO state_counters (tenant, seq, pruned, key_count, byte_count) VALUES (?, 0, 0, 0, 0) "
    "ON CONFLICT (tenant) DO UPDATE SET seq = state_counters.seq RETURNING seq, key_count, byte_count, floor"
)
_COUNT: Final = "UPDATE state_counters SET seq = ?, key_count = key_count + ?, byte_count = byte_count + ? WHERE tenant = ?"


class BoardLimits(Struct, frozen=True):
    """Quotas of one tenant, and how many changes of each key the history keeps."""

    keys_max: int = 100_000
    bytes_max: int = 256 << 20
    changes_per_key: int = 100


class Counters(Struct, frozen=True):
    """What a tenant's values take up now. `floor`: the highest version of a deletion that is in no history any more."""

    seq: int
    key_count: int
    byte_count: int
    floor: int = 0

    def check_room(self, limits: BoardLimits, new_keys: int, new_bytes: int) -> None:
        """Raises BoardFull where a change would exceed a quota. A change that makes values fewer or smaller is always allowed."""
        if new_keys > 0 and self.key_count + new_keys > limits.keys_max:
            raise BoardFull(f"The board has its {limits.keys_max} values (state.keys_max). Delete values, or let them expire.")
        if new_bytes > 0 and self.byte_count + new_bytes > limits.bytes_max:
            raise BoardFull(f"The board has its {limits.bytes_max} bytes of values (state.bytes_max). Delete values, or make them smaller.")


def lock_counters(batch: Batch, tenant: str) -> Counters:
    """Has all other changes of the tenant's board wait until this commit, and returns its counters."""
    (row,) = run_query(batch.connection, _LOCK, tenant)
    return Counters(row.seq, row.key_count, row.byte_count, row.floor)


def count_change(batch: Batch, tenant: str, seq: int, new_keys: int, new_bytes: int) -> None:
    """Counts change number `seq`, and what it adds to the tenant's values."""
    batch.run(_COUNT, (seq, new_keys, new_bytes, tenant))
