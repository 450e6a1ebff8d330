"""A gateway that starts brings its database to the schema of its version without keeping in memory what that takes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.storage.database import Database, engine_for
from gateway.storage.migrations import HEAD
from gateway.storage.migrations.run import downgrade

OLDER = "0028"
_AHEAD = """
import json, sys, threading
from gateway.server.composition.storage import migrate_ahead
from gateway.server.settings import Settings
settings = Settings.model_validate_json(sys.argv[1])
if "thread" in sys.argv:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
migrate_ahead(settings)
print(json.dumps({"alembic": "alembic" in sys.modules}))
"""


def migrate(home: Path, database_url: str, *more: str) -> tuple[Any, str]:
    """What a process has loaded after it has migrated ahead, and what it has logged."""
    settings = json.dumps({"home": str(home), "database": {"url": database_url}})
    command = [sys.executable, "-c", _AHEAD, settings, *more]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    logged, _, loaded = done.stdout.rstrip().rpartition("\n")
    return json.loads(loaded), logged


def plain(line: str) -> str:
    """The line without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", line).replace("'", "")


def revision_of(database_url: str) -> str:
    database = Database(engine_for(database_url))
    try:
        return database.revision()
    finally:
        database.close()


def test_an_older_schema_is_migrated_by_a_process_of_its_own(tmp_path: Path, database_url: str) -> None:
    engine = engine_for(database_url)
    downgrade(engine, OLDER)
    engine.dispose()
    known, logged = migrate(tmp_path, database_url)
    assert (known, revision_of(database_url)) == ({"alembic": False}, HEAD)
    begun, ended = (line for line in logged.splitlines() if "migration_" in line)
    assert all(f"{name}={value}" in line for line in (plain(begun), plain(ended)) for name, value in (("before", OLDER), ("after", HEAD)))
    assert "migration_begun" in begun and "migration_ended" in ended and "seconds=" in plain(ended)


def test_a_new_database_gets_its_schema_before_the_start(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'interlock.db'}"
    known, logged = migrate(tmp_path, url)
    assert (known, revision_of(url), logged) == ({"alembic": False}, HEAD, "")
    assert (tmp_path / "interlock.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_can_not_be_migrated_is_left_to_the_start(tmp_path: Path, database_url: str) -> None:
    engine = engine_for(database_url)
    downgrade(engine, OLDER)
    engine.dispose()
    threads, _ = migrate(tmp_path, database_url, "thread")
    assert revision_of(database_url) == OLDER  # a process with threads forks none
    (tmp_path / "keys").write_text("a file where the folder of the keys would be")
    refused, logged = migrate(tmp_path, database_url)
    assert logged == "" and revision_of(database_url) == OLDER  # the start says what is wrong
    assert threads == refused == {"alembic": False}
