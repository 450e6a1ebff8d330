"""Every moment: changes are seen by all, heads are signed, and who can't look believes nothing it remembers."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from adapters.contract import UpstreamFault
from gateway.server.periodic import EPOCH_SECONDS, HEAD_SECONDS
from gateway.storage.database import ReadFailed, raise_epoch
from gateway.timeouts import DEFAULT_TIMEOUTS
from policies.audit.heads import HEAD_JWT_TYPE, read_heads
from policies.audit.proof import read_rows, verify_chains
from registry.cards.card import RegistrationStatus
from registry.store import Registry
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.waiting import until


@pytest.fixture
async def other(tmp_path: Path, database_url: str, home: House) -> AsyncIterator[House]:
    """Another process of the gateway, on the same database."""
    async with house(tmp_path / "other", database_url) as built:
        yield built


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)  # two processes do not share a SQLite file
@pytest.mark.parametrize("name", ["grants", "registry", "policies", "keys"])
async def test_a_change_is_seen_by_another_process_within_a_second(home: House, other: House, name: str) -> None:
    seen: list[int] = []
    before = other.gateway.database._epochs[name]
    other.gateway.database.watch(name, lambda: seen.append(1))
    await home.gateway.database.write(lambda batch: raise_epoch(batch, name))
    await until(lambda: bool(seen), every=0.01)
    assert len(seen) == 1 and EPOCH_SECONDS <= 0.25  # by the very next look
    await until(lambda: other.gateway.database._epochs[name] > before, every=0.01)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)  # two processes do not share a SQLite file
async def test_an_agent_that_was_shut_out_here_is_shut_out_there(home: House, other: House) -> None:
    await home.agent(CallbackAgent("support"))
    token = other.token("alice")

    async def answers(expected: bool) -> bool:
        return ("result" in await other.send(token, "support", "hello")) is expected

    await until(lambda: answers(True), every=0.01)
    await home.gateway.registry.set_status("default", "support", RegistrationStatus.QUARANTINED)
    await until(lambda: answers(False), every=0.01)
    assert "error" in await other.send(token, "support", "hello")


async def test_rulings_made_while_the_registry_is_read_again_are_forgotten(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, read_again, when_read, when_done = home.gateway.rulings.authority, Registry._load, list[int](), list[int]()

    async def load(registry: Registry, read: Any) -> None:
        await read_again(registry, read)
        when_read.append(authority.generation)

    monkeypatch.setattr(Registry, "_load", load)
    home.gateway.database.watch("registry", lambda: when_done.append(authority.generation))  # the last watcher
    await home.gateway.database.write(lambda batch: raise_epoch(batch, "registry"))
    await until(lambda: bool(when_done), every=0.01)
    assert when_done[0] > when_read[0]


class Counting:
    """The policy engine, and how often it was really asked."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.asked = 0

    def decide(self, question: Any) -> Any:
        self.asked += 1
        return self._engine.decide(question)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


async def test_who_can_not_look_for_a_second_believes_no_ruling_of_before(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await home.server("inventory", "check")
    counting = home.gateway.rulings.authority._engine = Counting(home.gateway.rulings.engine)  # type: ignore[assignment]  # it counts, and asks the same
    database, token = home.gateway.database, home.token("alice")

    async def call() -> int:
        """How often the engine was asked for one call."""
        before = counting.asked
        assert (await home.call(token, "/mcp/inventory", "check", {})).status_code == 200
        return counting.asked - before

    await call()
    assert await call() == 0
    await database.write(lambda batch: batch.connection.execute(text("ALTER TABLE epochs RENAME TO unreadable")) and None)
    assert DEFAULT_TIMEOUTS.stale_epochs <= 1.0
    with monkeypatch.context() as sooner:
        sooner.setattr(database, "_stale_seconds", 0.5)
        await until(lambda: not database.is_fresh(), every=0.01)
        assert [await call(), await call()] == [1, 1]
        assert (await home.http.get("/readyz")).status_code == 503
    await database.write(lambda batch: batch.connection.execute(text("ALTER TABLE unreadable RENAME TO epochs")) and None)
    await until(lambda: database.is_fresh(), every=0.01)
    await call()
    assert await call() == 0


async def test_a_change_whose_watcher_failed_is_not_taken_for_seen(home: House) -> None:
    """It would never be looked at again: here a reload of the registry that the database did not answer."""
    tries: list[int] = []

    def fails() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError

    home.gateway.database.watch("registry", fails)
    await home.gateway.database.write(lambda batch: raise_epoch(batch, "registry"))
    await until(lambda: len(tries) == 3, every=0.01)
    await until(lambda: home.gateway.database.is_fresh(), every=0.01)
    assert len(tries) == 3


def heads_of(home: House) -> list[dict[str, Any]]:
    path = home.gateway.settings.home / "audit.heads"
    return [dict(home.gateway.keys.verify(line, HEAD_JWT_TYPE)) for line in read_heads(path)]


async def test_the_head_is_signed_within_a_second_and_kept_beside_the_database(home: House) -> None:
    agent = CallbackAgent("support")
    await home.agent(agent)
    await home.send(home.token("alice"), "support", "hello")
    head = home.gateway.audit.head

    def kept() -> bool:
        return any((one["seq"], one["hash"]) == (head.seq, head.hash) for one in heads_of(home))

    await until(kept, every=0.02)
    assert HEAD_SECONDS <= 1.0
    await home.gateway.periodic_tasks.sign_head()
    count = len(heads_of(home))
    await home.gateway.periodic_tasks.sign_head()
    assert len(heads_of(home)) == count  # nothing new, nothing written


async def test_at_shutdown_the_very_last_record_is_under_a_signed_head(tmp_path: Path, database_url: str) -> None:
    """Also the outcome of a call that had just been answered, and of each process one head is left at the next start."""
    folder = tmp_path / "home"
    chains = []
    for number in range(3):
        async with house(folder, database_url) as home:
            assert len(heads_of(home)) == number + 1  # one left of each process before, and the first of this one
            chains.append(home.gateway.audit.head.chain)
            if not number:
                await home.server("inventory", "check")
            await home.call(home.token("alice"), "/mcp/inventory", "check", {})
        assert (heads_of(home)[-1]["chain"], heads_of(home)[-1]["seq"]) == (chains[-1], home.gateway.audit.head.seq)
        engine = home.gateway.database.engine
        with engine.connect() as connection:
            rows = list(read_rows(connection.execution_options(interlock_read=True)))
        engine.dispose()
        last = [row for row in rows if row["chain"] == chains[-1]][-1]
        assert (last["kind"], last["seq"]) == ("outcome", home.gateway.audit.head.seq)
        heads = read_heads(folder / "audit.heads")
        assert verify_chains(rows, heads, home.gateway.keys).is_sound
        assert not verify_chains([row for row in rows if row is not last], heads, home.gateway.keys).is_sound


async def test_the_log_hears_of_the_first_head_and_the_last_and_not_of_every_one(
    tmp_path: Path, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with house(tmp_path / "home", database_url) as home:
        for _ in range(3):
            await home.http.get("/api/audit", headers={"authorization": f"Bearer {home.token('admin')}"})
            await home.gateway.periodic_tasks.sign_head()
    last = home.gateway.audit.head
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if '"audit_head"' in line]
    assert [line["level"] for line in lines] == ["info", "info"]
    assert lines[0]["seq"] < lines[1]["seq"] == last.seq > 3


async def test_while_it_runs_the_log_hears_of_a_new_head_now_and_then(
    tmp_path: Path, database_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.server.periodic.LOG_HEAD_SECONDS", 0.05)
    async with house(tmp_path / "home", database_url) as home:
        capsys.readouterr()
        await home.http.get("/api/audit", headers={"authorization": f"Bearer {home.token('admin')}"})
        lines: list[str] = []

        def head_logged() -> bool:
            lines.extend(capsys.readouterr().err.splitlines())
            return any('"audit_head"' in line for line in lines)

        await until(head_logged, every=0.05)
        assert [json.loads(line)["level"] for line in lines if '"audit_head"' in line][:1] == ["info"]


async def test_a_failed_first_look_at_tasks_does_not_prevent_the_start(home: House) -> None:
    gateway, looks = home.gateway, 0

    async def recover() -> int:
        nonlocal looks
        looks += 1
        raise UpstreamFault("the gateway lacks a credential that its settings name")

    await gateway.periodic_tasks.stop()
    await gateway.periodic_tasks.start(recover)
    assert looks == 1
    await until(lambda: looks > 1, every=0.05)


async def test_a_step_of_the_stop_that_fails_does_not_prevent_the_last_signed_head(tmp_path: Path, database_url: str) -> None:
    async def fails() -> None:
        raise ReadFailed

    async with house(tmp_path / "home", database_url) as home:
        home.gateway.lifecycle.on_stop(fails)
        home.gateway.lifecycle.on_stop(fails, after_turns=True)
        await home.http.get("/api/audit", headers={"authorization": f"Bearer {home.token('admin')}"})
    assert (heads_of(home)[-1]["chain"], heads_of(home)[-1]["seq"]) == (home.gateway.audit.head.chain, home.gateway.audit.head.seq)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)  # two processes do not share a SQLite file
async def test_work_of_the_elected_process_is_done_by_one(home: House, other: House) -> None:
    elected: list[str] = []
    everywhere: list[str] = []

    async def note(where: list[str], name: str) -> None:
        where.append(name)

    for built, name in ((home, "home"), (other, "other")):
        periodic = built.gateway.periodic_tasks
        periodic.repeat_elected(0.01, lambda name=name: note(elected, name))  # type: ignore[misc]  # bound now
        periodic.repeat(0.01, lambda name=name: note(everywhere, name))  # type: ignore[misc]  # bound now
    await until(lambda: len(elected) > 20 and {*everywhere} == {"home", "other"}, every=0.01)
    assert len({*elected}) == 1
    first = elected[0]
    await (home if first == "home" else other).gateway.periodic_tasks.stop()
    await until(lambda: elected[-1] != first, every=0.01)
    assert {*elected} == {"home", "other"}
