"""When no record can be kept, nothing is done: every door refuses, no upstream hears of it, and all is well when the database is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from gateway.storage.database import WriteFailed
from policies.audit.heads import read_heads
from policies.audit.proof import read_rows, verify_chains
from tests.fakes.house import CallbackAgent, House, ToolServer, house
from tests.fakes.outages import read_only
from tests.fakes.waiting import until


class Town:
    """A gateway with an agent and a tool server, and everything a client might ask of it."""

    def __init__(self, home: House, agent: CallbackAgent, server: ToolServer) -> None:
        self.home = home
        self.agent = agent
        self.server = server

    def effects(self) -> int:
        return len(self.agent.requests) + len(self.server.calls)

    async def send(self, method: str = "SendMessage", user: str = "alice", **configuration: Any) -> httpx.Response:
        message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hello"}]}
        params = {"message": message, "configuration": configuration}
        return await self.home.rpc("/agents/support", self.home.token(user), method, params, **{"A2A-Version": "1.0"})

    async def requests(self) -> dict[str, httpx.Response]:
        """What would have an effect, or would have to be kept for another reason."""
        home, alice = self.home, self.home.token("alice")
        card = {"url": "http://127.0.0.1:1/", "name": "late"}
        operator = {"authorization": f"Bearer {home.token('admin')}"}
        return {
            "SendMessage": await self.send(),
            "SendMessage, immediately": await self.send(returnImmediately=True),
            "SendStreamingMessage": await self.send("SendStreamingMessage"),
            "SendMessage, denied": await self.send(user="nora"),
            "tools/call at a server": await home.call(alice, "/mcp/inventory", "check", {"sku": "1"}),
            "tools/call": await home.call(alice, "/mcp", "inventory_check", {"sku": "1"}),
            "tools/call of an agent": await home.call(alice, "/mcp", "support", {"message": "hello"}),
            "tools/call, denied": await home.call(home.token("nora", scope="tool:*"), "/mcp/inventory", "check", {}),
            "token exchange": await home.exchange("support", "no token of ours", "/mcp/inventory", "tool:inventory.check"),
            "registration": await home.http.post("/api/servers", json=card, headers=operator),
        }

    async def assert_refused(self) -> None:
        before, tasks = self.effects(), await self.tasks()
        for what, answer in (await self.requests()).items():
            assert answer.status_code == 503, (what, answer.status_code, answer.text)
            assert answer.headers["retry-after"], what
            document = answer.json()
            assert document.get("reason_id") == "not-kept" or document["error"]["code"] == -32013, (what, answer.text)
            for secret in ("sqlite", "psycopg", "OperationalError", "INSERT", "readonly", "Traceback"):
                assert secret not in answer.text, what
        assert self.effects() == before
        assert await self.tasks() == tasks
        assert (await self.home.http.get("/readyz")).status_code == 503

    async def assert_well(self) -> None:
        """It serves again, by itself, and the trail of what was done has no gap."""

        async def ready() -> bool:
            return (await self.home.http.get("/readyz")).status_code == 200

        await until(ready, every=0.02)
        before = self.effects()
        assert "result" in (await self.send()).json()
        assert "result" in (await self.home.call(self.home.token("alice"), "/mcp/inventory", "check", {})).json()
        assert self.effects() == before + 2
        rows = await self.home.gateway.database.read(lambda connection: list(read_rows(connection)))
        heads = read_heads(self.home.gateway.settings.home / "audit.heads")
        assert verify_chains(rows, heads, self.home.gateway.keys).is_sound

    async def tasks(self) -> int:
        query = text("SELECT count(*) FROM tasks")
        return int(await self.home.gateway.database.read(lambda connection: connection.execute(query).scalar_one()))


async def town(home: House) -> Town:
    agent = await home.agent(CallbackAgent("support"))
    built = Town(home, agent, await home.server("inventory", "check"))
    await built.assert_well()
    return built


async def test_a_database_that_takes_no_writes_stops_every_effect_until_it_does(home: House) -> None:
    built = await town(home)
    async with read_only(home.gateway.database):
        await built.assert_refused()
        done = await home.rpc("/agents/support", home.token("alice"), "GetTask", {"id": await _some_task(home)}, **{"A2A-Version": "1.0"})
        assert done.json()["result"]["status"]["state"] == "TASK_STATE_COMPLETED"  # what was kept can still be read
    await built.assert_well()


async def test_a_question_that_the_database_does_not_answer_is_no_accident_either(home: House) -> None:
    built = await town(home)
    task_id, database = await _some_task(home), home.gateway.database
    for before, after in (("tasks", "away"), ("away", "tasks")):
        await database.write(lambda batch, b=before, a=after: batch.connection.exec_driver_sql(f"ALTER TABLE {b} RENAME TO {a}") and None)  # type: ignore[misc]  # bound now
        answer = await home.rpc("/agents/support", home.token("alice"), "GetTask", {"id": task_id}, **{"A2A-Version": "1.0"})
        listed = await home.http.get(f"/api/tasks/{task_id}", headers={"authorization": f"Bearer {home.token('alice')}"})
        assert (answer.status_code, listed.status_code) == ((503, 503) if after == "away" else (200, 200))
        assert (answer.json()["error"]["code"], listed.json()["reason_id"]) == (-32013, "not-read") if after == "away" else True
    await built.assert_well()


async def _some_task(home: House) -> str:
    query = text("SELECT id FROM tasks LIMIT 1")
    return str(await home.gateway.database.read(lambda connection: connection.execute(query).scalar_one()))


async def test_a_full_disk_stops_every_effect_until_there_is_room(tmp_path: Path, sqlite_template: Path) -> None:
    async with house(tmp_path / "home", f"sqlite:///{tmp_path / 'interlock.db'}") as home:
        built = await town(home)
        database = home.gateway.database
        await database.write(lambda batch: batch.connection.exec_driver_sql("PRAGMA max_page_count = 1") and None)  # as many as there are
        async with _filled(home):
            await built.assert_refused()
        await built.assert_well()


@asynccontextmanager
async def _filled(home: House) -> AsyncIterator[None]:
    """The room that was left is taken, too."""
    database = home.gateway.database
    for size in (3000, 300, 30):
        record = {"kind": "note", "tenant": "default", "decision_id": "", "txn": "", "text": "x" * size}
        with pytest.raises(WriteFailed):
            while True:
                await database.write(lambda batch, record=record: home.gateway.audit.record(batch, record))  # type: ignore[misc]  # bound now
    yield
    await database.write(lambda batch: batch.connection.exec_driver_sql("PRAGMA max_page_count = 1073741823") and None)


@pytest.fixture
async def limited(tmp_path: Path, postgres_url: str) -> AsyncIterator[tuple[House, Any]]:
    """A gateway whose role at the server may do what it needs to, and the server's administrator."""
    role = f"limited_{postgres_url.rpartition('test_')[2][:12]}"
    engine = create_engine(make_url(postgres_url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as admin:
        admin.execute(text(f"CREATE ROLE {role} LOGIN"))
        admin.execute(text(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"))

        def privilege(statement: str) -> None:
            admin.execute(text(statement.format(role=role)))

        url = make_url(postgres_url).set(username=role).render_as_string(hide_password=False)
        async with house(tmp_path / "home", url) as home:
            yield home, privilege
        admin.execute(text(f"DROP OWNED BY {role}"))
        admin.execute(text(f"DROP ROLE {role}"))
    engine.dispose()


async def test_a_role_that_may_not_write_the_audit_stops_every_effect_until_it_may(limited: tuple[House, Any]) -> None:
    home, privilege = limited
    built = await town(home)
    privilege("REVOKE INSERT ON audit FROM {role}")
    await built.assert_refused()
    privilege("GRANT INSERT ON audit TO {role}")
    await built.assert_well()
