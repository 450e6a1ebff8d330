"""Processes are replaced one after the other under load, without a failed request; the database fails over without a restart."""

import asyncio
from pathlib import Path

from sqlalchemy import text

from gateway.storage.database import engine_for
from tests.chaos.databases import postgres
from tests.fakes.waiting import until
from tests.soak.balancer import NONE_READY
from tests.soak.rolling import pair, roll

KINDS = {"SendMessage", "SendStreamingMessage", "SubscribeToTask", "tools/call", "tools/call in a session", "administration", "console"}
REASONS = ("not-read", "not-kept", "NOT_READ", "NOT_KEPT", "its records now", NONE_READY)
_END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def test_a_rolling_restart_fails_no_request_of_any_kind(postgres_url: str, tmp_path: Path) -> None:
    async with pair(tmp_path / "pair", postgres_url) as built:
        await roll(built, clients=6, rounds=1)
        assert built.clients.outcome.failed == []
        assert built.clients.outcome.by_kind.keys() == KINDS
        assert min(built.balancer.served.values()) > 50 and built.clients.outcome.reopened >= 1
        assert built.processes[0].proof().is_sound


def untyped(failures: list[str]) -> list[str]:
    """Failures that are no answer 503 with its reason, be it of the gateway or of the balancer while no process is ready."""
    return [each for each in failures if not (": 503 " in each and any(reason in each for reason in REASONS))]


async def test_a_database_that_fails_over_is_used_again_without_a_restart(tmp_path: Path) -> None:
    with postgres(tmp_path / "server") as server:
        async with pair(tmp_path / "pair", server.url) as built:
            load, seen = asyncio.create_task(built.clients.run(5)), built.clients.outcome
            await built.served_more(50)
            for strike in (lambda: asyncio.to_thread(end_sessions, server.url), server.restart):
                await strike()
                await until(lambda: built.balancer.ready == {each.port for each in built.processes}, every=0.05)
                await built.served_more(25)
                failed = len(seen.failed)
                await built.served_more(50)
                assert seen.failed[failed:] == []
            built.clients.stop()
            await load
            assert untyped(seen.failed) == []
            assert [is_running(each.pid) for each in built.processes] == [True, True]
            assert built.processes[0].proof().is_sound


def end_sessions(database_url: str) -> None:
    """Ends every session at the database, as a server does that hands over to its standby."""
    engine = engine_for(database_url)
    with engine.begin() as connection:
        connection.execute(text(_END_SESSIONS))
    engine.dispose()


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
