"""The size of slices: how many rows one transaction deletes, so that no other write waits for it for long."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from gateway.storage.batch import Batch
from gateway.storage.database import Database

T = TypeVar("T")
SECONDS_AIMED_AT: Final = 0.008  # of one transaction's statements; 20 ms are the most that a call should wait for
ROWS_FIRST: Final = 100
ROWS_MIN, ROWS_MAX = 10, 2000


class SliceSize:
    """How many rows the next slice may have: adapted to what the last ones took, at most doubled or halved by each."""

    def __init__(self) -> None:
        self.rows = ROWS_FIRST

    def adapt(self, rows: int, seconds: float) -> None:
        """Learns that deleting `rows` rows took `seconds`. A slice that was not full makes the next one smaller, never larger."""
        if not rows:
            return
        wanted = int(rows * SECONDS_AIMED_AT / max(seconds, 1e-6))
        if wanted < self.rows or rows * 2 > self.rows:
            self.rows = max(ROWS_MIN, min(ROWS_MAX, max(self.rows // 2, min(self.rows * 2, wanted))))


class SliceWriter:
    """Runs slices in the database's writer, and measures them there: the wait for the writer does not count."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        """`clock` counts seconds."""
        self._database = database
        self._clock = clock
        self.size = SliceSize()

    async def write(self, work: Callable[[Batch], T], rows_of: Callable[[T], int], refusal: type[Exception]) -> tuple[T, float]:
        """Runs `work` in one commit, and returns its result and the seconds that it took. `rows_of` counts what the result deleted.

        `work` raises `refusal` before it changes anything.
        """

        def measured(batch: Batch) -> tuple[T, float]:
            began = self._clock()
            return work(batch), self._clock() - began

        result, seconds = await self._database.write_or_refuse(measured, refusal)
        self.size.adapt(rows_of(result), seconds)
        return result, seconds


class Slice(NamedTuple):
    """Tasks that one transaction deletes as a whole. `is_large`: one task with more rows, which needs several."""

    task_ids: Sequence[str]
    rows: int
    is_large: bool


def next_slice(task_ids: Sequence[str], counts: Mapping[str, int], rows_max: int) -> Slice:
    """Returns the first slice of the tasks, with `rows_max` rows at most; one task alone may have more."""
    chosen = list(_fitting(task_ids, counts, rows_max))
    rows = sum(counts.get(task_id, 1) for task_id in chosen)
    if chosen:
        return Slice(chosen, rows, is_large=False)
    return Slice(task_ids[:1], counts.get(task_ids[0], 1), is_large=True)


def _fitting(task_ids: Sequence[str], counts: Mapping[str, int], rows_max: int) -> Iterator[str]:
    left = rows_max
    for task_id in task_ids:
        left -= counts.get(task_id, 1)
        if left < 0:
            return
        yield task_id
