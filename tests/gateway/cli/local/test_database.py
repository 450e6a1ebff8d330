"""db size and db vacuum: on either database, without a running gateway."""

import asyncio
from pathlib import Path

import pytest

from gateway.cli.local import database as database_commands
from gateway.storage.database import Database, engine_for
from gateway.storage.files.data_folder import lock_home
from policies.keys.signing import SigningKeys
from tests.fakes.old_tasks import add_task
from tests.gateway.cli.conftest import CommandLine


@pytest.fixture
def filled(interlock: CommandLine, tmp_path: Path, database_url: str) -> CommandLine:
    """A database with 500 tasks that ended years ago."""

    async def fill() -> None:
        database = Database(engine_for(database_url))
        database.start()
        await database.write(lambda batch: [add_task(batch, f"t_{number}", tenant="acme") for number in range(500)])
        database.close()

    (tmp_path / "home").mkdir()
    SigningKeys.open(tmp_path / "home")
    asyncio.run(fill())
    interlock.environment["INTERLOCK_DATABASE__URL"] = database_url
    return interlock


def test_size_counts_the_rows_and_bytes_of_each_table_and_what_is_due(filled: CommandLine) -> None:
    shown = filled("db", "size", "--json").json
    by_table = {each["table"]: each for each in shown["tables"]}
    assert by_table["tasks"]["rows"] == 500 and by_table["task_events"]["rows"] == 1000 and not by_table["tasks"]["estimated"]
    assert by_table["tasks"]["bytes"] > 50_000 and shown["bytes"] > by_table["tasks"]["bytes"]
    assert by_table["tasks"]["oldest"].startswith("1975-") and by_table["kills"]["oldest"] is None and shown["due"] == []
    filled.environment["INTERLOCK_RETENTION__DAYS"] = "400"
    assert [(each["tenant"], each["tasks"]) for each in filled("db", "size", "--json").json["due"]] == [("acme", 500)]
    text = filled("db", "size")
    assert "kills" not in text.out and " empty tables: " in text.out
    assert "task_events" in text.out and "acme: 500 tasks last changed before" in text.out


def test_vacuum_gives_back_the_space_of_deleted_rows(filled: CommandLine, database_url: str) -> None:
    engine = engine_for(database_url)
    with engine.begin() as connection:
        for table in ("task_events", "tasks"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    engine.dispose()
    done = filled("db", "vacuum", "--json").json
    if database_url.startswith("sqlite"):
        assert done["bytes_after"] < done["bytes_before"]
        assert filled("db", "size", "--json").json["free_bytes"] == 0
    assert done["bytes_after"] > 0 and "now" in filled("db", "vacuum").out


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_gateway_at_work_on_sqlite_is_measured_but_not_vacuumed(filled: CommandLine, tmp_path: Path) -> None:
    with lock_home(tmp_path / "home"):
        assert filled("db", "size").code == 0
        ran = filled("db", "vacuum")
    assert ran.code == 1 and "stop the gateway" in ran.err


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_disk_without_room_for_a_copy_is_said_before(filled: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_commands, "ROOM", 1e12)
    ran = filled("db", "vacuum")
    assert ran.code == 1 and "too little room" in ran.err
