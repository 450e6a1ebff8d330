"""A backup that is made under load is restored into an empty home and database, and a gateway works on it."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bench.processes import environment
from tests.fakes.postgres_databases import PostgresDatabases
from tests.fakes.postgres_programs import path_with
from tests.fakes.waiting import until
from tests.journeys.kills import TERMINAL, Clients, Gateway, is_ready, tasks_in, town


@contextmanager
def empty_database(request: pytest.FixtureRequest, folder: Path, database_url: str) -> Iterator[str]:
    """An empty database of the same kind."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{folder / 'restored' / 'interlock.db'}"
        return
    databases: PostgresDatabases = request.getfixturevalue("postgres_databases")
    with databases.lend_without_tables() as url:
        yield url


async def command(gateway: Gateway, *arguments: str) -> Any:
    """Runs a command of the gateway on its home and database, and returns its JSON."""
    process = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "gateway", *arguments, "--json"],
        cwd=gateway.folder,
        env=environment(INTERLOCK_HOME=str(gateway.data), PATH=path_with()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def restored(gateway: Gateway, folder: Path, database_url: str) -> Gateway:
    """A gateway with another home and database, and the agents and address of the first."""
    other = gateway.sibling()
    other.folder, other.data, other.database_url = folder, folder / "data", database_url
    folder.mkdir()
    settings = json.loads((gateway.folder / "interlock.yaml").read_text())
    settings |= {"database": {"url": database_url}, "server": {"public_url": gateway.url, "drain_delay": 0}}
    (folder / "interlock.yaml").write_text(json.dumps(settings))
    return other


async def test_a_backup_made_under_load_is_restored_whole(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> None:
    with empty_database(request, tmp_path, database_url) as empty_url:
        async with town(tmp_path / "first", database_url) as built:
            first = built.gateway
            first.configure(server={"drain_delay": 0})
            await built.start()
            earlier, meanwhile = Clients(first, built.http, 1), Clients(first, built.http, 2)
            await earlier.run(4, 5)
            load = asyncio.create_task(meanwhile.run(8, 200))
            await until(lambda: meanwhile.answers > 10)
            made = await command(first, "backup", str(tmp_path / "copy.tar.gz"))
            assert not load.done()
            load.cancel()
            await asyncio.to_thread(first.stop)
            assert made["records"] > 20 and (tmp_path / "copy.tar.gz").stat().st_mode & 0o777 == 0o600

            second = restored(first, tmp_path / "second", empty_url)
            outcome = await command(second, "restore", str(tmp_path / "copy.tar.gz"))
            assert (outcome["sound"], outcome["records"], outcome["replaced"]) == (True, made["records"], "")
            try:
                second.port, second.url = first.port, first.url
                second.start()
                await until(lambda: is_ready(built.http, second), seconds=120, every=0.03)
                await until(lambda: {state for state, _, _ in tasks_in(second).values()} <= TERMINAL, seconds=60, every=0.05)

                tokens, known = first.tokens(), tasks_in(second)
                assert earlier.told and {*earlier.told} <= {*known} <= {*tasks_in(first)}
                later = Clients(second, built.http, 3)
                later._tokens = tokens  # which the keys of the first home have signed
                for task_id, told in earlier.told.items():
                    assert (await later.get(told.user, task_id))["status"]["state"] in {told.state, *TERMINAL}
                await later.run(2, 4)
                assert later.answers and not later.refused
            finally:
                await asyncio.to_thread(second.stop)
            assert (await command(second, "audit", "verify"))["sound"]
