"""One gateway at a time uses a SQLite file, and a lost, damaged or newer database refuses the start in one line."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.server.app import build_application
from gateway.server.composition.process import Gateway
from gateway.server.settings import Settings
from gateway.storage.database import engine_for
from gateway.storage.database_start import DatabaseUnusable
from gateway.storage.files.database_file import DatabaseInUse, lock_database_file, sqlite_path
from gateway.storage.files.lost_records import refuse_lost_records
from tests.fakes.house import URL, house

HOLD = """
import sys, time
from pathlib import Path
from gateway.storage.files.database_file import lock_database_file
lock = lock_database_file(sys.argv[1], Path(sys.argv[2]))
print("held", flush=True)
time.sleep(600)
"""


def settings(home: Path, url: str) -> Settings:
    return Settings(home=home, database={"url": url}, server={"public_url": URL}, sandbox="off")


async def run_once(home: Path, url: str) -> None:
    """Starts a gateway, which records its start and signs the head, and stops it."""
    async with house(home, url) as made:
        await made.gateway.periodic_tasks.sign_head()


async def test_two_gateways_with_different_homes_can_not_share_one_file(tmp_path: Path, sqlite_template: Path) -> None:
    url = f"sqlite:///{tmp_path / 'one.db'}"
    async with house(tmp_path / "first", url):
        with pytest.raises(DatabaseInUse) as refused:
            Gateway(settings(tmp_path / "second", url))
        message = str(refused.value)
        assert f"process {os.getpid()} on " in message and str(tmp_path / "first") in message and str(tmp_path / "one.db") in message
        assert "database.url" in refused.value.todo
    Gateway(settings(tmp_path / "second", url)).database.close()


def test_a_symbolic_link_names_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with lock_database_file(f"sqlite:///{tmp_path}/real/x.db", tmp_path) as lock:  # type: ignore[union-attr]  # it is no Postgres
        assert lock is not None
        with pytest.raises(DatabaseInUse):
            lock_database_file(f"sqlite:///{tmp_path}/link/x.db", tmp_path)
    assert sqlite_path("postgresql://h/d") is None and lock_database_file("postgresql://h/d", tmp_path) is None


def test_a_killed_process_releases_the_lock(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    with subprocess.Popen([sys.executable, "-c", HOLD, url, str(tmp_path / "theirs")], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(DatabaseInUse, match=f"process {holder.pid} on .* with the home {tmp_path}/theirs, since 20"):
            lock_database_file(url, tmp_path)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        lock = lock_database_file(url, tmp_path)
        assert lock is not None
        lock.close()


def test_an_empty_lock_file_still_refuses_a_second_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    lock = lock_database_file(url, tmp_path)
    assert lock is not None
    lock.truncate(0)
    with pytest.raises(DatabaseInUse, match="unknown process"):
        lock_database_file(url, tmp_path)
    lock.close()


def _vanish(url: str) -> None:
    Path(url.removeprefix("sqlite:///")).unlink()


def _truncate(url: str) -> None:
    Path(url.removeprefix("sqlite:///")).write_bytes(b"")


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _empty(url: str) -> None:
    engine = engine_for(url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM audit"))
    engine.dispose()


@pytest.mark.parametrize("lose", [_vanish, _truncate])
async def test_a_lost_database_file_refuses_the_start(tmp_path: Path, sqlite_template: Path, lose: Callable[[str], None]) -> None:
    home, url = tmp_path / "home", f"sqlite:///{tmp_path / 'one.db'}"
    await run_once(home, url)
    lose(url)
    files = _names(tmp_path)
    for _ in range(2):
        with pytest.raises(DatabaseUnusable) as refused:
            Gateway(settings(home, url))
        assert "lost, emptied or moved" in str(refused.value) and f"move {home / 'audit.heads'} to another folder" in refused.value.todo
    assert _names(tmp_path) == files
    (home / "audit.heads").rename(home / "audit.heads.kept")
    await run_once(home, url)


async def test_a_database_without_its_audit_records_refuses_the_start(tmp_path: Path, database_url: str) -> None:
    home = tmp_path / "home"
    await run_once(home, database_url)
    _empty(database_url)
    with pytest.raises(DatabaseUnusable, match="lost, emptied or moved"):
        Gateway(settings(home, database_url))


async def test_an_older_backup_starts_with_a_warning(tmp_path: Path, sqlite_template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, url = tmp_path / "home", f"sqlite:///{tmp_path / 'one.db'}"
    await run_once(home, url)
    kept = (tmp_path / "one.db").read_bytes()
    await run_once(home, url)
    (tmp_path / "one.db").write_bytes(kept)
    capsys.readouterr()
    gateway = Gateway(settings(home, url))
    assert '"event": "audit_records_missing", "chains": 1' in capsys.readouterr().err
    assert refuse_lost_records(gateway.database.engine, home / "audit.heads", gateway.keys) == 1
    assert capsys.readouterr().err == ""  # a command that checks says it in its own words
    gateway.database.close()


async def test_heads_signed_by_another_gateway_prove_nothing(
    tmp_path: Path, sqlite_template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await run_once(tmp_path / "theirs", f"sqlite:///{tmp_path / 'theirs.db'}")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "audit.heads").write_bytes((tmp_path / "theirs" / "audit.heads").read_bytes() + b"nonsense\n")
    capsys.readouterr()
    await run_once(home, f"sqlite:///{tmp_path / 'new.db'}")
    assert "audit_records_missing" not in capsys.readouterr().err


def test_a_file_that_is_no_database_refuses_the_start(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database at all, but long enough for one" * 100)
    with pytest.raises(DatabaseUnusable, match="file is not a database") as refused:
        Gateway(settings(tmp_path / "home", f"sqlite:///{tmp_path / 'x.db'}"))
    assert "backup" in refused.value.todo


async def test_a_damaged_file_is_reported_in_one_line(tmp_path: Path, sqlite_template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, file = tmp_path / "home", tmp_path / "x.db"
    await run_once(home, f"sqlite:///{file}")
    with sqlite3.connect(file) as connection:
        pages = [row[0] for row in connection.execute("SELECT rootpage FROM sqlite_master WHERE name IN ('registrations', 'kills')")]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    with file.open("r+b") as damaged:
        for page in pages:
            damaged.seek((page - 1) * size)
            damaged.write(b"\xff" * size)
    capsys.readouterr()
    assert await _start_messages(Gateway(settings(home, f"sqlite:///{file}"))) == ["lifespan.startup.failed"]
    failed = [line for line in capsys.readouterr().err.splitlines() if "start_failed" in line]
    assert len(failed) == 1 and "malformed" in failed[0] and "exception" not in failed[0]


async def _start_messages(gateway: Gateway) -> list[str]:
    """The lifespan messages that the gateway sends at its start."""
    told: list[str] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: dict[str, str]) -> None:
        told.append(message["type"])

    await build_application(gateway)({"type": "lifespan"}, receive, send)
    return told


@pytest.mark.parametrize("revision", ["9999", "abc123"])
async def test_a_newer_schema_refuses_the_start(tmp_path: Path, database_url: str, revision: str) -> None:
    await run_once(tmp_path / "home", database_url)
    engine = engine_for(database_url)
    with engine.begin() as connection:
        for statement in ("UPDATE alembic_version SET version_num = :revision", "UPDATE schema_bounds SET usable_from = :revision"):
            connection.execute(text(statement), {"revision": revision})
    engine.dispose()
    with pytest.raises(DatabaseUnusable, match=f"is at revision {revision}, but this version of the gateway knows only"):
        Gateway(settings(tmp_path / "home", database_url))
