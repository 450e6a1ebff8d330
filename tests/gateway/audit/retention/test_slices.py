"""Deletion in portions: no transaction deletes many rows, a large task needs several, and an interruption loses nothing."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.retention import slices
from gateway.audit.retention.archive import TaskArchive
from gateway.audit.retention.holds import LegalHolds
from gateway.audit.retention.pruner import Retention
from gateway.audit.retention.slices import ROWS_MAX, ROWS_MIN, SECONDS_AIMED_AT, SliceSize, next_slice
from gateway.audit.retention.terms import ArchiveUnwritable, RetentionTerms, TermsByTenant
from gateway.ingress.admin.authority.oversight import Oversight
from gateway.storage.database import Batch, Database
from gateway.tasks.log import UnknownTask
from policies.callers import Caller
from policies.delegation.chain import Delegation, Principal
from policies.delegation.permissions import ALL_PERMISSIONS
from policies.delegation.rulings import Act
from tests.fakes.old_tasks import NOW, add_task, count, task_ids

T = TypeVar("T")
LIMIT = 20


class CountedDatabase:
    """A database that counts the rows of tasks and events that each write deletes, and breaks after some writes."""

    def __init__(self, database: Database, writes_max: int = 1000) -> None:
        self.engine, self.read = database.engine, database.read
        self._database = database
        self.deleted: list[int] = []
        self.writes_left = writes_max

    async def write_or_refuse(self, work: Callable[[Batch], T], *refusals: type[Exception]) -> T:
        if not self.writes_left:
            raise ConnectionError
        self.writes_left -= 1

        def counted(batch: Batch) -> T:
            before = _rows_of(batch)
            result = work(batch)
            self.deleted.append(before - _rows_of(batch))
            return result

        return await self._database.write_or_refuse(counted, *refusals)


def _rows_of(batch: Batch) -> int:
    return sum(int((batch.fetch(f"SELECT COUNT(*) FROM {table}", ()) or [0])[0]) for table in ("tasks", "task_events"))


def pruning(database: Any, records: list[Any], archive: TaskArchive | None = None, terms: RetentionTerms | None = None) -> Retention:
    def record(_batch: Batch, one: Mapping[str, Any]) -> None:
        records.append(one)

    return Retention(
        database, TermsByTenant(terms or RetentionTerms(days=50), {}), record, now=lambda: NOW, clock=lambda: 0.0, archive=archive
    )


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROWS_FIRST", "ROWS_MAX"):
        monkeypatch.setattr(slices, name, LIMIT)


@pytest.mark.usefixtures("small_slices")
async def test_no_transaction_deletes_more_rows_than_a_slice_has(database: Database) -> None:
    def work(batch: Batch) -> None:
        for number in range(25):
            add_task(batch, f"old-{number}", events=3)
        add_task(batch, "large", events=5 * LIMIT)

    await database.write(work)
    counted = CountedDatabase(database)
    pruned = await pruning(counted, []).prune("t")
    assert pruned.tasks == 26 and await task_ids(database) == set() and await count(database, "task_events") == 0
    assert max(counted.deleted) <= LIMIT and sum(counted.deleted) == 25 * 4 + 5 * LIMIT + 1


@pytest.mark.usefixtures("small_slices")
async def test_what_an_interruption_leaves_goes_in_the_next_round(database: Database) -> None:
    await database.write(lambda batch: add_task(batch, "large", events=5 * LIMIT))
    with pytest.raises(ConnectionError):
        await pruning(CountedDatabase(database, writes_max=2), []).prune("t")
    assert await task_ids(database) == {"large"} and await count(database, "task_events") == 4 * LIMIT
    await pruning(database, []).prune("t")
    assert await task_ids(database) == set() and await count(database, "task_events") == 0


@pytest.mark.usefixtures("small_slices")
async def test_a_hold_finds_a_large_task_whole_or_not_at_all(database: Database) -> None:
    """Its deletion was recorded with its first slice, and goes on whoever is held afterwards, even where nothing is due any more."""
    await database.write(lambda batch: add_task(batch, "large", events=5 * LIMIT))
    records: list[Any] = []
    with pytest.raises(ConnectionError):
        await pruning(CountedDatabase(database, writes_max=2), records).prune("t")
    assert [one["task_ids"] for one in records] == [["large"]]
    ids = iter("abc")
    holds = LegalHolds(database, lambda _batch, _one: None, lambda kind: kind + next(ids), lambda: NOW)
    with pytest.raises(UnknownTask):
        await holds.place(Principal("t", "i", "olga", ()), "task", "large", "")
    await holds.place(Principal("t", "i", "olga", ()), "person", "t|i|alice", "")
    await holds.place(Principal("t", "i", "olga", ()), "tenant", "", "")
    assert (await database.query("SELECT owner, txn FROM tasks", (), lambda rows: rows)) == [("t||deleted", "")]
    await pruning(database, records, terms=RetentionTerms()).run_once()
    assert await task_ids(database) == set() and await count(database, "task_events") == 0 and len(records) == 1


@pytest.mark.usefixtures("small_slices")
async def test_operators_do_not_find_what_is_left_of_a_large_task(database: Database) -> None:
    await database.write(lambda batch: add_task(batch, "large", events=5 * LIMIT))
    with pytest.raises(ConnectionError):
        await pruning(CountedDatabase(database, writes_max=2), []).prune("t")
    olga = Principal("t", "i", "olga", ())
    caller = Caller(olga, Delegation(olga, ALL_PERMISSIONS, 60.0), "", "", 60.0, "")
    with pytest.raises(UnknownTask):
        await Oversight(database, lambda _caller, _act: True, authorize_any).find_any_task(caller, "large")


async def authorize_any(_caller: Caller, _act: Act, _task_id: str) -> None:
    """Refuses nobody."""


async def test_a_request_deletes_for_a_bounded_time_and_says_that_more_is_due(database: Database) -> None:
    await database.write(lambda batch: [add_task(batch, f"old-{number:03}") for number in range(90)])
    pruner = pruning(database, [])
    ticks = iter(range(100_000))
    pruner._clock = lambda: float(next(ticks))
    first = await pruner.prune("t", seconds=3)
    assert 0 < first.tasks < 90 and not first.is_complete
    assert (await pruning(database, []).prune("t", seconds=1e6)).is_complete and await task_ids(database) == set()


async def test_rows_are_in_the_archive_before_they_are_deleted(database: Database, tmp_path: Path) -> None:
    """The audit has the digest of the lines that each slice appended."""
    await database.write(lambda batch: [add_task(batch, name, events=2) for name in ("one", "two")])
    records: list[Any] = []
    await pruning(database, records, TaskArchive(tmp_path / "archive", "p_1")).prune("t")
    record = records[0]
    assert (record["kind"], record["tenant"], record["count"], record["lines"]) == ("retention", "t", 2, 6)
    raw = (tmp_path / "archive" / record["archive"]).read_bytes()
    assert hashlib.sha256(raw).hexdigest() == record["digest"]
    lines = [json.loads(line) for line in raw.splitlines()]
    assert [line["table"] for line in lines] == ["tasks", "task_events", "task_events"] * 2
    assert {line["row"]["id"] for line in lines if line["table"] == "tasks"} == {"one", "two"}
    assert (tmp_path / "archive" / record["archive"]).stat().st_mode & 0o077 == 0


async def test_without_an_archive_the_audit_names_each_deleted_task(database: Database) -> None:
    await database.write(lambda batch: [add_task(batch, name) for name in ("one", "two")])
    records: list[Any] = []
    await pruning(database, records).prune("t")
    assert [sorted(record["task_ids"]) for record in records] == [["one", "two"]]


async def test_nothing_is_deleted_that_can_not_be_archived(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    await database.write(lambda batch: add_task(batch, "old"))
    with pytest.raises(ArchiveUnwritable, match="nothing was deleted"):
        await pruning(database, [], TaskArchive(tmp_path / "file", "p_1")).prune("t")
    assert await task_ids(database) == {"old"}


@pytest.mark.parametrize("tenant", ["..", "a/b", "."])
def test_a_tenants_name_does_not_lead_out_of_the_archive(tmp_path: Path, tenant: str) -> None:
    class NoRows:
        def execute(self, *_: Any, **__: Any) -> list[Any]:
            return []

    connection: Any = NoRows()
    part = TaskArchive(tmp_path, "p_1").append(connection, tenant, ["one"], NOW)
    assert len(Path(part.file).parts) == 2 and (tmp_path / part.file).resolve().is_relative_to(tmp_path)


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 2)), max_size=30))
def test_a_slice_has_a_bounded_size_whatever_it_took(outcomes: list[tuple[int, float]]) -> None:
    size = SliceSize()
    for rows, seconds in outcomes:
        before = size.rows
        size.adapt(rows, seconds)
        assert ROWS_MIN <= size.rows <= ROWS_MAX and before // 2 <= size.rows <= max(ROWS_MIN, before * 2)


def test_slices_come_to_the_time_that_is_aimed_at() -> None:
    size, seconds_per_row = SliceSize(), SECONDS_AIMED_AT / 300
    for _ in range(20):
        size.adapt(size.rows, size.rows * seconds_per_row)
    assert 280 <= size.rows <= 320
    for _ in range(20):
        size.adapt(size.rows, size.rows * seconds_per_row * 10)
    assert size.rows <= 32


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(10, 60))
def test_slices_take_every_task_once_and_in_order(counts: list[int], rows_max: int) -> None:
    waiting: list[str] = [str(number) for number in range(len(counts))]
    by_task, taken = dict(zip(waiting, counts, strict=True)), list[str]()
    take = partial(next_slice, counts=by_task, rows_max=rows_max)
    while waiting:
        chosen = take(waiting)
        assert chosen.is_large == (chosen.rows > rows_max) and (not chosen.is_large or len(chosen.task_ids) == 1)
        taken += chosen.task_ids
        waiting = waiting[len(chosen.task_ids) :]
    assert taken == [*by_task]
