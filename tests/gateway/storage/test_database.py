import asyncio
import sqlite3

import pytest
from sqlalchemy import Connection, create_engine, func, select
from sqlalchemy.exc import IntegrityError

from gateway.state.tables import state_values
from gateway.storage.database import Batch, Database, WriteFailed, engine_for, raise_epoch
from gateway.storage.migrations import HEAD
from gateway.storage.migrations.run import downgrade, upgrade
from gateway.storage.tables import metadata as gateway_tables
from gateway.storage.tables import processes
from gateway.workflows.runs.tables import workflow_runs
from policies.tables import metadata as policies_tables
from registry.tables import metadata as registry_tables
from tests.fakes.timeouts import LONG_TIMEOUTS


def row(name: str) -> dict[str, object]:
    return {"id": name, "started": 1, "seen": 1}


async def count(database: Database) -> int:
    return await database.read(lambda c: c.execute(select(func.count()).select_from(processes)).scalar_one())


async def test_writes_that_wait_together_share_one_commit(database: Database) -> None:
    seen: list[str] = []

    class Counting:
        def on_commit(self) -> None:
            seen.append("commit")

        def on_rollback(self) -> None:
            seen.append("rollback")

        def resolve_uncertain_commit(self, connection: Connection) -> bool:
            return False

    database.enlist(Counting())
    gate: list[int] = []

    def slow(batch: Batch) -> None:
        while not gate:  # holds the writer until all the others have been handed in
            pass
        batch.add(processes, row("first"))

    first = asyncio.ensure_future(database.write(slow))
    await asyncio.sleep(0)
    rest = [asyncio.ensure_future(database.write(lambda batch, i=i: batch.add(processes, row(f"p{i}")))) for i in range(50)]
    await asyncio.sleep(0)
    gate.append(1)
    await asyncio.gather(first, *rest)
    assert await count(database) == 51
    assert len(seen) <= 3


async def test_a_failing_write_fails_alone(database: Database) -> None:
    await database.write(lambda batch: batch.add(processes, row("taken")))
    outcomes = await asyncio.gather(
        *(database.write(lambda batch, n=n: batch.connection.execute(processes.insert().values(row(n)))) for n in ("a", "taken", "b")),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], IntegrityError)
    assert not isinstance(outcomes[0], BaseException) and not isinstance(outcomes[2], BaseException)
    assert await count(database) == 3


async def test_what_work_raises_reaches_its_caller_and_keeps_nothing(database: Database) -> None:
    def refuse(batch: Batch) -> None:
        batch.add(processes, row("half"))
        raise KeyError("no")

    with pytest.raises(KeyError):
        await database.write(refuse)
    assert await count(database) == 0


async def test_a_posted_write_is_kept_before_close(database_url: str) -> None:
    database = Database(engine_for(database_url))
    database.start()
    database.post(lambda batch: batch.add(processes, row("posted")))
    database.close()
    engine = engine_for(database_url)
    with engine.connect() as connection:
        assert connection.execute(select(processes.c.id)).scalar_one() == "posted"
    engine.dispose()


async def test_a_database_that_cannot_write_refuses_and_recovers(tmp_path, sqlite_template) -> None:
    path = tmp_path / "interlock.db"
    path.write_bytes(sqlite_template.read_bytes())
    database = Database(engine_for(f"sqlite:///{path}"))
    database.start()
    await database.write(lambda batch: batch.add(processes, row("before")))
    blocker = sqlite3.connect(path)
    await database.write(lambda batch: batch.connection.exec_driver_sql("PRAGMA busy_timeout=1"))
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(WriteFailed):
        await database.write(lambda batch: batch.add(processes, row("lost")))
    blocker.rollback()
    blocker.close()
    await database.write(lambda batch: batch.add(processes, row("after")))
    assert await count(database) == 2
    database.close()


async def test_another_process_sees_a_bumped_epoch(database: Database, database_url: str) -> None:
    other = Database(engine_for(database_url), stale_seconds=LONG_TIMEOUTS.stale_epochs)
    other.start()
    await other.refresh_epochs()
    seen: list[str] = []
    other.watch("grants", lambda: seen.append("grants"))
    other.watch("registry", lambda: seen.append("registry"))
    await database.write(lambda batch: raise_epoch(batch, "grants"))
    await other.refresh_epochs()
    assert seen == ["grants"]
    assert other.is_fresh()
    other.close()


def test_the_migrations_make_the_tables_that_the_code_names(database_url: str) -> None:
    engine = engine_for(database_url)
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    assert workflow_runs.metadata is state_values.metadata is gateway_tables  # their tables are compared too
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        for metadata in (gateway_tables, policies_tables, registry_tables):
            ours = set(metadata.tables)
            differences = [d for d in compare_metadata(context, metadata) if not _foreign(d, ours)]
            assert differences == []
    engine.dispose()


def _foreign(difference: object, ours: set[str]) -> bool:
    """A table of another package, which this package's metadata rightly does not know."""
    kind, subject = (difference[0], difference[1]) if isinstance(difference, tuple) else ("", None)
    table = getattr(subject, "table", subject)
    return kind in {"remove_table", "remove_index"} and getattr(table, "name", "") not in ours


def test_migrations_go_down_and_up_again(database_url: str) -> None:
    engine = engine_for(database_url)
    downgrade(engine, "base")
    upgrade(engine)
    assert Database(engine).revision() == HEAD
    engine.dispose()


def test_a_new_database_has_no_revision(tmp_path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'new.db'}")
    assert Database(engine).revision() == ""
    engine.dispose()
