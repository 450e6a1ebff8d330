"""How large the database is, who is warned of it, and statistics of tables that have grown."""

from typing import Any

import pytest
import structlog
from sqlalchemy import text

from gateway.audit.retention.sizes import GrowthStatistics, SizeWatch, read_database_bytes
from gateway.storage.database import Database, ReadFailed, engine_for
from tests.fakes.old_tasks import add_task


async def grow(database: Database, first: int, count: int) -> None:
    await database.write(lambda batch: [add_task(batch, f"t{number}") for number in range(first, first + count)])


async def test_a_large_database_is_warned_of_and_a_small_one_is_not(database: Database) -> None:
    size = await database.read(read_database_bytes)
    assert size > 100_000
    with structlog.testing.capture_logs() as logged:
        await SizeWatch(database, size * 2, lambda: True).run_once()
        assert logged == []
        await SizeWatch(database, size // 2, lambda: True).run_once()
        await SizeWatch(database, size // 2, lambda: False).run_once()
    assert [line["event"] for line in logged] == ["database_large"] * 2
    assert "retention.days" in logged[0]["todo"] and "retention.days" not in logged[1]["todo"]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_tables_that_have_grown_get_new_statistics_once(database: Database) -> None:
    statistics = GrowthStatistics(database.engine)
    await grow(database, 0, 600)
    await _report_counts(database)
    assert {"tasks", "task_events"} <= set(await statistics.run_once())
    await _report_counts(database)
    assert not {"tasks", "task_events"} & set(await statistics.run_once())
    estimate = "SELECT CAST(reltuples AS BIGINT) FROM pg_class WHERE relname = 'tasks'"
    assert await database.query(estimate, (), lambda rows: rows[0][0]) == 600


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_sqlite_needs_no_statistics(database: Database) -> None:
    assert await GrowthStatistics(database.engine).run_once() == []


async def _report_counts(database: Database) -> None:
    """Sessions report what they have changed after a second; this one does it at once."""

    def work(batch: Any) -> None:
        batch.connection.execute(text("SELECT pg_stat_force_next_flush()"))

    await database.write(work)


async def test_statistics_of_a_database_that_is_away_are_an_outage_and_no_bug() -> None:
    with pytest.raises(ReadFailed):
        await GrowthStatistics(engine_for("postgresql://nobody@127.0.0.1:1/nothing")).run_once()
