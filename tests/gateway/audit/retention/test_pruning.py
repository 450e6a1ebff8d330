"""Old tasks go with all that belongs to them; what is young, unfinished, needed or held stays."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any

import pytest
from sqlalchemy import Connection, select, text

from gateway.audit.retention.archive import ArchivedPart
from gateway.audit.retention.holds import Hold, LegalHolds
from gateway.audit.retention.pruner import Retention
from gateway.audit.retention.task_rows import tables_of_task
from gateway.audit.retention.terms import RetentionTerms, TermsByTenant, UnknownHold
from gateway.state.effects.tables import subject_effects
from gateway.storage.database import Batch, Database, engine_for
from gateway.storage.tables import deliveries, push_configs, task_prompts
from gateway.tasks.log import UnknownTask
from gateway.workflows.runs import tables as runs
from policies.delegation.chain import Principal
from policies.tables import approvals, transaction_history
from tests.fakes.old_tasks import DAY, NOW, add_task, count, insert, task_ids
from tests.fakes.timeouts import LONG_TIMEOUTS

OPERATOR = Principal("t", "i", "olga", ())
WAITING_LOCKS = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'")
KEEP_50_DAYS = RetentionTerms(days=50)


def pruning(database: Database, default: RetentionTerms = KEEP_50_DAYS, records: Any = None, **more: Any) -> Retention:
    """What prunes at the moment NOW. The records of the audit are added to `records`."""
    kept: list[Any] = [] if records is None else records
    by_name = more.pop("by_name", {})
    record: Callable[[Batch, Mapping[str, Any]], None] = lambda _batch, one: kept.append(one)  # noqa: E731 (one line)
    return Retention(database, TermsByTenant(default, by_name), record, now=lambda: NOW, clock=lambda: 0.0, **more)


def holds_of(database: Database, records: list[Any]) -> LegalHolds:
    ids = iter("abcdefgh")
    return LegalHolds(database, lambda _batch, one: records.append(one), lambda kind: kind + next(ids), lambda: NOW)


async def test_an_old_task_goes_with_every_row_that_belongs_to_it(database: Database) -> None:
    await database.write(lambda batch: add_task(batch, "old"))
    await insert(database, task_prompts, task_id="old", prompt_digest="p")
    await insert(database, runs.workflow_runs, id="old", workflow="w")
    await insert(database, runs.workflow_steps, run_id="old", key="k")
    await insert(database, runs.workflow_checkpoints, run_id="old", id="c", state="answered")
    await insert(database, runs.workflow_looks, checkpoint_id="c", person="p")
    await insert(database, runs.workflow_hops, run_id="old", txn="x")
    pruned = await pruning(database).prune("t")
    assert pruned.tasks == 1 and pruned.is_complete
    for table in (*tables_of_task(), runs.workflow_looks):
        assert await count(database, table.name) == 0, table.name


async def test_every_table_that_names_a_task_by_a_key_is_among_its_tables(database: Database) -> None:
    names = {table.name for table in tables_of_task()}
    assert {"tasks", "task_events", "push_configs", "deliveries", "run_tasks", "workflow_steps", "workflow_received"} <= names


@pytest.mark.parametrize(
    "task",
    [
        {"days_old": 49},
        {"state": "TASK_STATE_WORKING"},
        {"state": "TASK_STATE_INPUT_REQUIRED"},
        {"runner": "p_1"},
        {"parent_id": "waiting"},
        {"txn": "going on"},
    ],
    ids=["young", "working", "asking", "run by a process", "of a waiting parent", "of an unfinished transaction"],
)
async def test_a_task_that_is_not_over_stays(database: Database, task: dict[str, Any]) -> None:
    def work(batch: Batch) -> None:
        add_task(batch, "stays", **task)
        add_task(batch, "waiting", state="TASK_STATE_WORKING", txn="another")
        add_task(batch, "going-on", state="TASK_STATE_AUTH_REQUIRED", txn="going on")
        add_task(batch, "goes")

    await database.write(work)
    assert (await pruning(database).prune("t")).tasks == 1
    assert await task_ids(database) == {"stays", "waiting", "going-on"}


@pytest.mark.parametrize("needed_by", ["run", "approval", "delivery", "webhook", "effect"])
async def test_a_task_that_something_still_needs_stays_until_that_is_over(database: Database, needed_by: str) -> None:
    await database.write(lambda batch: [add_task(batch, name) for name in ("stays", "goes", "other-run")])
    if needed_by == "run":
        await database.write(lambda batch: batch.run("UPDATE tasks SET state = 'TASK_STATE_WORKING' WHERE id = 'other-run'", ()))
        await insert(database, runs.workflow_runs, id="other-run", workflow="w")
        await insert(database, runs.workflow_waits, run_id="other-run", task_id="stays")
    elif needed_by == "approval":
        await insert(database, approvals, id="a", txn="x-stays", state="pending")
    elif needed_by == "effect":
        await insert(database, subject_effects, id="d", task_id="stays", state="under-way")
    else:
        await insert(database, push_configs, task_id="stays", id="c", live=1 if needed_by == "webhook" else 0)
        if needed_by == "delivery":
            await insert(database, deliveries, task_id="stays", config_id="c", id="v", state="pending")
    await pruning(database).prune("t")
    left = await task_ids(database)
    assert "stays" in left and "goes" not in left
    for table in ("workflow_waits", "approvals", "deliveries", "push_configs", "subject_effects"):
        await database.write(lambda batch, table=table: batch.run(f"DELETE FROM {table}", ()))
    await pruning(database).prune("t")
    assert "stays" not in await task_ids(database)


async def test_only_the_newest_tasks_are_kept_and_none_of_the_last_day_goes(database: Database) -> None:
    ages = {"a": 10.0, "b": 8.0, "c": 6.0, "d": 0.5, "e": 0.4}
    await database.write(lambda batch: [add_task(batch, name, days_old=age) for name, age in ages.items()])
    await pruning(database, RetentionTerms(tasks=3)).prune("t")
    assert await task_ids(database) == {"c", "d", "e"}
    await pruning(database, RetentionTerms(tasks=1)).prune("t")
    assert await task_ids(database) == {"d", "e"}


async def test_each_tenant_has_the_terms_under_its_name(database: Database) -> None:
    for tenant in ("t", "u", "v"):
        await database.write(lambda batch, tenant=tenant: add_task(batch, "old", tenant=tenant, owner=f"{tenant}|i|alice"))
    await pruning(database, RetentionTerms(), by_name={"u": KEEP_50_DAYS, "v": RetentionTerms(days=200)}).run_once()
    assert [bool(await task_ids(database, tenant)) for tenant in ("t", "u", "v")] == [True, False, True]


async def test_what_is_held_stays_until_the_hold_is_released(database: Database) -> None:
    """A hold on a task keeps its whole transaction, so that the trace stays whole."""

    def work(batch: Batch) -> None:
        add_task(batch, "of-alice")
        add_task(batch, "of-bob", owner="t|i|bob")
        add_task(batch, "held", owner="t|i|carol", txn="shared")
        add_task(batch, "beside", owner="t|i|carol", txn="shared")

    await database.write(work)
    records: list[Any] = []
    holds, prune = holds_of(database, records), pruning(database).prune
    whole = await holds.place(OPERATOR, "tenant", "", "")
    person = await holds.place(OPERATOR, "person", "t|i|alice", "case 17")
    task = await holds.place(OPERATOR, "task", "held", "case 17")
    assert (await prune("t")).tasks == 0
    await holds.release(OPERATOR, whole.id)
    assert (await prune("t")).tasks == 1 and await task_ids(database) == {"of-alice", "held", "beside"}
    await holds.release(OPERATOR, person.id)
    await holds.release(OPERATOR, task.id)
    assert (await prune("t")).tasks == 3
    assert [(one["kind"], one["verb"], one["principal"]["subject"]) for one in records] == [("hold", "placed", "olga")] * 3 + [
        ("hold", "released", "olga")
    ] * 3


async def test_a_hold_names_an_existing_task_and_there_is_one_for_each_target(database: Database) -> None:
    holds = holds_of(database, records := [])
    await database.write(lambda batch: add_task(batch, "held"))
    with pytest.raises(UnknownTask):
        await holds.place(OPERATOR, "task", "nowhere", "")
    first = await holds.place(OPERATOR, "task", "held", "one")
    assert await holds.place(OPERATOR, "task", "held", "two") == first and len(records) == 1
    assert await holds.list_of_tenant("t") == [first] and await holds.list_of_tenant("u") == []
    with pytest.raises(UnknownHold):
        await holds.release(Principal("u", "i", "olga", ()), first.id)


class HoldBeforeDeletion:
    """An archive that places a hold while it writes, which is between the selection of tasks and their deletion."""

    def __init__(self, holds: LegalHolds) -> None:
        self.holds = holds
        self.loop = asyncio.get_running_loop()

    def append(self, _connection: Connection, _tenant: str, _task_ids: Sequence[str], _now: int) -> ArchivedPart:
        placing = self.holds.place(OPERATOR, "person", "t|i|alice", "")
        asyncio.run_coroutine_threadsafe(placing, self.loop).result()
        return ArchivedPart("file", "digest", 1)


@pytest.mark.parametrize("events", [2, 150], ids=["small", "large"])
async def test_a_hold_that_is_placed_during_a_round_counts_at_once(database: Database, events: int) -> None:
    await database.write(lambda batch: add_task(batch, "held", events=events))
    archive: Any = HoldBeforeDeletion(holds_of(database, []))
    pruned = await pruning(database, archive=archive).prune("t")
    assert not pruned.tasks and not pruned.is_complete and await task_ids(database) == {"held"}
    assert await count(database, "task_events") == events


class TakeoverBeforeDeletion:
    """An archive during whose write a process takes a task."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.loop = asyncio.get_running_loop()

    def append(self, _connection: Connection, _tenant: str, _task_ids: Sequence[str], _now: int) -> ArchivedPart:
        taking = self.database.write(lambda batch: batch.run("UPDATE tasks SET runner = 'p' WHERE id = 'taken'", ()))
        asyncio.run_coroutine_threadsafe(taking, self.loop).result()
        return ArchivedPart("file", "digest", 2)


async def test_a_task_that_a_process_takes_during_a_round_keeps_its_events(database: Database) -> None:
    await database.write(lambda batch: [add_task(batch, "taken"), add_task(batch, "goes")])
    archive: Any = TakeoverBeforeDeletion(database)
    records: list[Any] = []
    assert (await pruning(database, records=records, archive=archive).prune("t")).tasks == 1
    assert await task_ids(database) == {"taken"} and await count(database, "task_events") == 2
    assert [record["count"] for record in records] == [1]


async def test_approvals_and_histories_go_after_the_last_task_of_their_transaction(database: Database) -> None:
    await database.write(lambda batch: [add_task(batch, "goes"), add_task(batch, "stays", days_old=2)])
    for name in ("goes", "stays"):
        await insert(database, approvals, id=name, txn=f"x-{name}", state="used", created=NOW - 90 * DAY, closed=NOW - 90 * DAY)
        await insert(database, transaction_history, txn=f"x-{name}", totals="{}", updated=NOW - 90 * DAY)
    due = await pruning(database).find_due("t")
    assert (due.tasks, due.records) == (1, {"approvals": 0, "errands": 0})
    pruned = await pruning(database).prune("t")
    assert (pruned.tasks, pruned.records) == (1, {"approvals": 1, "errands": 1})
    left = await database.read(lambda connection: connection.execute(select(approvals.c.txn)).scalars().all())
    assert left == ["x-stays"] and await count(database, "errands") == 1


async def test_nothing_is_deleted_by_default(database: Database) -> None:
    await database.write(lambda batch: add_task(batch, "old", days_old=1900))
    await pruning(database, RetentionTerms()).run_once()
    assert (await pruning(database, RetentionTerms()).prune("t")).total == 0 and await task_ids(database) == {"old"}


async def test_one_round_at_a_time(database: Database) -> None:
    await database.write(lambda batch: [add_task(batch, f"old-{number}") for number in range(30)])
    one, two = pruning(database), pruning(database)
    outcomes = await asyncio.gather(one.prune("t"), one.prune("t"))
    assert sorted((each.tasks, each.is_complete) for each in outcomes) == [(0, False), (30, True)]
    assert (await two.prune("t")).is_complete


async def test_the_epoch_of_pruned_tasks_is_raised(database: Database) -> None:
    raised: list[int] = []
    database.watch("retention", lambda: raised.append(1))
    await database.refresh_epochs()
    await database.write(lambda batch: add_task(batch, "old"))
    before = len(raised)
    await pruning(database).prune("t")
    await database.refresh_epochs()
    assert len(raised) == before + 1


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Database]:
    """The database as another process uses it."""
    opened = Database(engine_for(database_url), stale_seconds=LONG_TIMEOUTS.stale_epochs)
    opened.start()
    yield opened
    opened.close()


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_no_hold_is_placed_on_a_task_that_another_process_is_deleting(database: Database, other: Database) -> None:
    await database.write(lambda batch: add_task(batch, "held"))
    loop, placing = asyncio.get_running_loop(), list[Future[Hold]]()

    def place_meanwhile(_batch: Batch, _record: Mapping[str, Any]) -> None:
        """Places a hold while the deletion is not committed, and goes on once that has ended or waits."""
        placing.append(asyncio.run_coroutine_threadsafe(holds_of(other, []).place(OPERATOR, "task", "held", ""), loop))
        with other.engine.connect() as connection:
            while not (placing[0].done() or connection.execute(WAITING_LOCKS).scalar_one()):
                wait(placing, timeout=0.01)
                connection.rollback()

    retention = Retention(database, TermsByTenant(KEEP_50_DAYS, {}), place_meanwhile, now=lambda: NOW, clock=lambda: 0.0)
    assert (await retention.prune("t")).tasks == 1
    with pytest.raises(UnknownTask):
        await asyncio.wrap_future(placing[0])
