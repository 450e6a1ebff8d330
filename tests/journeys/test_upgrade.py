"""The code of the last release on the schema of this one: alone on SQLite, and side by side with this code on PostgreSQL."""

import asyncio
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway.storage.database import engine_for
from gateway.storage.migrations import HEAD, USABLE_FROM
from tests.bench.processes import ROOT, environment
from tests.fakes.postgres_databases import PostgresDatabases
from tests.fakes.waiting import until
from tests.journeys.kills import Gateway
from tests.journeys.test_takeover import Relay, answer_of, relay

PACKAGES = ("gateway", "adapters", "registry", "policies")


def last_release() -> str:
    return (Path(__file__).parent / "last_release").read_text().split()[-1]


@pytest.fixture(scope="session")
def old_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of the last release, from the history of the repository."""
    folder = tmp_path_factory.mktemp("last-release")
    archive = subprocess.run(["git", "archive", last_release(), *PACKAGES], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"without the history of the repository there is no code of {last_release()[:8]}: git fetch --unshallow")
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    return folder


class Release(Gateway):
    """A process that runs the code of a folder."""

    code = ROOT

    @property
    def _environment(self) -> dict[str, str]:
        return {**super()._environment, "PYTHONPATH": str(self.code)}


@asynccontextmanager
async def releases(folder: Path, database_url: str, first: Path, second: Path) -> AsyncIterator[Relay]:
    """Two processes with an agent, each with the code of a folder."""
    async with relay(folder, database_url) as built:
        for gateway, code in ((built.first, first), (built.second, second)):
            gateway.__class__ = Release
            gateway.code = code  # type: ignore[attr-defined]  # it is a Release now
        yield built


def revision_at(database_url: str) -> str:
    engine = engine_for(database_url)
    with engine.connect() as connection:
        found = connection.execution_options(interlock_read=True).execute(text("SELECT version_num FROM alembic_version")).scalar()
    engine.dispose()
    return str(found)


def old_head(code: Path) -> str:
    found = re.search(r'^HEAD = "(\d+)"', (code / "gateway/storage/migrations/__init__.py").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_schema_names_the_code_of_the_last_release(old_code: Path) -> None:
    command = ["python", "-c", "import gateway; print(gateway.__file__)"]
    loaded = subprocess.run(command, env=environment(PYTHONPATH=str(old_code)), cwd=old_code, capture_output=True, text=True, check=True)
    assert Path(loaded.stdout.strip()) == old_code / "gateway" / "__init__.py"
    assert old_head(old_code) == USABLE_FROM <= HEAD


@pytest.mark.parametrize("old_begins", [True, False], ids=["old begins", "new begins"])
async def test_two_versions_share_a_database_and_their_tasks(
    old_begins: bool, old_code: Path, postgres_databases: PostgresDatabases, tmp_path: Path
) -> None:
    with postgres_databases.lend_without_tables() as url:
        codes = (old_code, ROOT) if old_begins else (ROOT, old_code)
        async with releases(tmp_path / "relay", url, *codes) as built:
            old, new = (built.first, built.second) if old_begins else (built.second, built.first)
            await built.start(old)
            assert revision_at(url) == old_head(old_code)
            earlier = (await built.send(old, "desk", "earlier"))[1]["result"]["task"]["id"]
            await built.start(new)
            assert revision_at(url) == HEAD

            waiting = asyncio.create_task(built.send(built.first, "desk", "write", key="once"))
            _, begun = await built.send(built.first, "graph", "wait for it")
            await until(lambda: built.asked.count("write") == 1 and "wait for it" in built.asked, every=0.05)
            for gateway in (old, new):
                assert (await built.task(gateway, "desk", earlier))["status"]["state"] == "TASK_STATE_WORKING"
            await asyncio.to_thread(built.first.stop, signal.SIGTERM)
            await waiting

            again = asyncio.create_task(built.send(built.second, "desk", "write", key="once"))
            await until(built.is_desk_asked_again, every=0.05)
            built.release()
            written: Any = (await again)[1]["result"]["task"]
            assert (written["status"]["state"], answer_of(written)) == ("TASK_STATE_COMPLETED", "first half, second half")
            await until(built.has_ended, every=0.05)
            assert answer_of(await built.task(built.second, "graph", begun["result"]["task"]["id"])) == "echo: wait for it"
            assert sorted(built.asked) == ["earlier", "wait for it", "write"]
        assert built.second.proof().is_sound


async def test_the_old_code_works_on_the_new_schema_of_a_sqlite_file(old_code: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'interlock.db'}"
    async with releases(tmp_path / "relay", url, ROOT, ROOT) as built:
        built.release()
        await built.start(built.first)
        begun = (await built.send(built.first, "desk", "new", key="new"))[1]["result"]["task"]
        await asyncio.to_thread(built.first.stop, signal.SIGTERM)
        assert revision_at(url) == HEAD

        if old_head(old_code) < "0035":  # code that does not read `schema_bounds` refuses every revision that it does not know
            engine = engine_for(url)
            with engine.begin() as connection:
                connection.execute(text("UPDATE alembic_version SET version_num = :old"), {"old": old_head(old_code)})
            engine.dispose()
        built.first.code = old_code  # type: ignore[attr-defined]  # it is a Release
        await built.start(built.first)
        assert answer_of(await built.task(built.first, "desk", begun["id"])) == "first half, second half"
        later = (await built.send(built.first, "desk", "old", key="old"))[1]["result"]["task"]
        assert answer_of(later) == "first half, second half"
        await asyncio.to_thread(built.first.stop, signal.SIGTERM)
        assert built.first.proof().is_sound
