"""The steps of an upgrade before the start: commands of this version on the database that an older one left."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.storage.database import engine_for
from gateway.storage.migrations import HEAD
from gateway.storage.migrations.run import downgrade
from tests.fakes.postgres_databases import PostgresDatabases
from tests.fakes.postgres_programs import path_with
from tests.gateway.cli.conftest import CommandLine

OLDER = "0028"  # a revision of a release


@pytest.fixture
def older(interlock: CommandLine, database_url: str) -> CommandLine:
    """The command line over a database with an older schema, with the signing keys of its gateway."""
    engine = engine_for(database_url)
    downgrade(engine, OLDER)
    engine.dispose()
    made = CommandLine({**interlock.environment, "INTERLOCK_DATABASE__URL": database_url, "PATH": path_with()})
    assert made("token", "--user", "alice", "--create-keys").code == 0
    return made


@pytest.fixture
def empty_url(database_url: str, postgres_databases: PostgresDatabases, tmp_path: Path) -> Iterator[str]:
    """An empty place of the same kind."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path / 'restored' / 'interlock.db'}"
        return
    with postgres_databases.lend_without_tables() as url:
        yield url


def database_of(checked: CommandLine) -> tuple[bool, str, str]:
    (found,) = [each for each in checked("check", "--json").json["checks"] if each["name"] == "database"]
    return found["ok"], found["detail"], found["todo"]


def test_a_schema_that_the_next_start_migrates_is_no_problem(older: CommandLine) -> None:
    ok, detail, todo = database_of(older)
    assert ok and detail.startswith(f"at {OLDER},") and "the next start" in todo
    (found,) = [each for each in older("doctor", "--json").json["findings"] if each["id"].startswith("database.")]
    assert (found["id"], found["severity"]) == ("database.migration", "note")
    assert older("migrate", "--json").json["after"] == HEAD
    assert database_of(older) == (True, f"at {HEAD}", "")


def test_a_backup_of_an_older_schema_is_restored_with_that_schema(older: CommandLine, empty_url: str, tmp_path: Path) -> None:
    file = str(tmp_path / "before.tar.gz")
    assert older("backup", file).code == 0
    home = str(tmp_path / "restored")
    restored = CommandLine({**older.environment, "INTERLOCK_HOME": home, "INTERLOCK_DATABASE__URL": empty_url})
    assert restored("restore", file).code == 0
    assert f"at {OLDER}," in database_of(restored)[1]
