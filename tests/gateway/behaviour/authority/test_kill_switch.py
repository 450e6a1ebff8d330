"""An operator stops an agent, a server or a person: what runs ends in every process, what would begin is refused, until it is lifted."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from adapters.task import TaskState
from gateway.calls.revocation.spool import FILE_NAME
from gateway.storage.tables import deliveries, mcp_sessions, push_configs, tasks
from policies.ids import now_us
from policies.tables import audit_records as audit_table
from policies.tables import grants as grants_table
from policies.tokens.verifier import DEVELOPMENT_ISSUER
from tests.fakes.house import CallbackAgent, House, house, two
from tests.fakes.mcp_clients import upstream
from tests.fakes.mcp_talkers import Talker
from tests.fakes.mcp_wire import ABLE, modern, post, session
from tests.fakes.outages import read_only
from tests.fakes.waiting import until

ALICE = f"default|{DEVELOPMENT_ISSUER}|alice"
ERROR = "urn:interlock:a2a:error"


class Held:
    """An agent that works until it is let go, and says who is at work."""

    def __init__(self, name: str) -> None:
        self.agent = CallbackAgent(name, self._act)
        self.gate = asyncio.Event()
        self.tokens: list[str] = []

    async def _act(self, token: str, text: str) -> str:
        self.tokens.append(token)
        await self.gate.wait()
        return "done"


@pytest.fixture
async def held(home: House) -> AsyncIterator[Held]:
    agent = Held("sales")
    await home.agent(agent.agent)
    yield agent
    agent.gate.set()


async def kill(home: House, kind: str, name: str, user: str = "admin", **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {home.token(user)}"}
    return await home.http.post("/api/kill", json={"kind": kind, "name": name, **more}, headers=headers)


async def killed(home: House, kind: str, name: str, **more: Any) -> dict[str, Any]:
    answer = await kill(home, kind, name, **more)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def records(home: House, kind: str) -> list[dict[str, Any]]:
    query = select(audit_table.c.body).where(audit_table.c.kind == kind)
    rows = await home.gateway.database.read(lambda connection: connection.execute(query).scalars().all())
    return [json.loads(body) for body in rows]


def state(answer: dict[str, Any]) -> str:
    return str(answer["result"]["task"]["status"]["state"])


def why(task: dict[str, Any]) -> str:
    return str(task["status"]["message"]["metadata"][ERROR]["reason"])


@pytest.mark.parametrize(("kind", "name"), [("agent", "sales"), ("user", "alice"), ("user", ALICE)])
async def test_a_kill_ends_what_runs_and_refuses_what_would_begin_until_it_is_lifted(home: House, held: Held, kind: str, name: str) -> None:
    running = asyncio.create_task(home.send(home.token("alice"), "sales", "hello"))
    await until(lambda: len(held.tokens) == 1)
    made = await killed(home, kind, name, reason="it leaks")
    assert made["ended"] == 1 and made["name"] == ("sales" if kind == "agent" else ALICE)
    task = (await running)["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_FAILED" and why(task) == "KILLED"
    refused = await home.send(home.token("alice"), "sales", "again")
    assert refused["error"]["code"] == -32010
    text = json.dumps(refused)
    assert ("killed" in text or "KILLED" in text) and "it leaks" not in text
    assert len(held.tokens) == 1
    headers = {"authorization": f"Bearer {home.token('admin')}"}
    listed = (await home.http.get("/api/kill", headers=headers)).json()
    assert [(one["kind"], one["reason"]) for one in listed["items"]] == [(kind, "it leaks")]
    assert b"interlock_kills 1.0" in home.gateway.metrics.render()
    assert (await home.http.delete(f"/api/kill/{made['id']}", headers=headers)).status_code == 204
    assert (await home.http.delete(f"/api/kill/{made['id']}", headers=headers)).status_code == 404
    held.gate.set()
    assert state(await home.send(home.token("alice"), "sales", "again")) == "TASK_STATE_COMPLETED"
    assert [one["target"]["kind"] for one in await records(home, "kill")] == [kind]
    assert [one["principal"]["subject"] for one in await records(home, "lift")] == ["admin"]


async def test_a_killed_server_is_called_no_more_and_its_calls_under_way_end(home: House) -> None:
    at_work, gate = asyncio.Event(), asyncio.Event()
    server = await home.server("inventory", "check")
    answer = home.gateway.tools.call

    async def slow(*given: Any) -> Any:
        at_work.set()
        await gate.wait()
        return await answer(*given)

    home.gateway.tools.call = slow  # type: ignore[method-assign]  # a server that takes its time
    running = asyncio.create_task(home.call(home.token("alice"), "/mcp/inventory", "check", {}))
    await at_work.wait()
    assert (await killed(home, "server", "inventory"))["ended"] == 1
    ended = (await running).json()
    assert (ended["error"]["code"], ended["error"]["data"]["reason_id"]) == (-32010, "killed")
    gate.set()
    again = (await home.call(home.token("alice"), "/mcp/inventory", "check", {})).json()
    assert again["error"]["code"] in (-32010, -32602) and server.calls == []
    assert (await kill(home, "server", "inventory", lift=True)).json()["lifted"]
    assert "result" in (await home.call(home.token("alice"), "/mcp/inventory", "check", {})).json()


async def test_a_killed_server_is_in_no_list_that_was_made_before(home: House) -> None:
    await home.server("inventory", "check")

    async def listed() -> list[str]:
        answer = await post(home, "alice", *modern("tools/list", {}), "/mcp")
        return [tool["name"] for tool in answer.json()["result"]["tools"] if tool["name"].startswith("inventory")]

    assert await listed() == await listed() == ["inventory_check"]  # the second one is from the cache
    await killed(home, "server", "inventory")
    assert await listed() == []
    await kill(home, "server", "inventory", lift=True)
    assert await listed() == ["inventory_check"]


async def test_a_kill_reaches_down_the_chain_and_tokens_of_it_are_worth_nothing(home: House) -> None:
    worker, tokens = Held("worker"), []

    async def delegate(token: str, text: str) -> str:
        tokens.append(token)
        mine = await home.exchanged("front", token, "/agents/worker", "agent:worker")
        return json.dumps(await home.send(mine, "worker", text))

    await home.agent(worker.agent)
    await home.agent(CallbackAgent("front", delegate))
    await home.server("inventory", "check")
    running = asyncio.create_task(home.send(home.token("alice"), "front", "hello"))
    await until(lambda: len(worker.tokens) == 1)
    assert (await killed(home, "agent", "front"))["ended"] == 2
    assert why((await running)["result"]["task"]) == "KILLED"
    for agent, token in (("front", tokens[0]), ("worker", worker.tokens[0])):
        refused = (await home.exchange(agent, token, "/mcp/inventory", "tool:inventory.check")).json()
        assert refused["error"] == "invalid_grant"
    query = select(tasks.c.agent, tasks.c.state)
    ended = {tuple(row) for row in await home.gateway.database.read(lambda connection: connection.execute(query).all())}
    assert ended == {("front", "TASK_STATE_FAILED"), ("worker", "TASK_STATE_FAILED")}
    worker.gate.set()


async def test_others_go_on(home: House, held: Held) -> None:
    """Of another person, tenant and agent, though the name is the same."""
    await home.registered("sales", "http://127.0.0.1:9/", tenant="acme")
    bob = asyncio.create_task(home.send(home.token("bob"), "sales", "hello"))
    await until(lambda: len(held.tokens) == 1)
    assert (await killed(home, "user", "alice"))["ended"] == 0
    headers = {"authorization": f"Bearer {home.token('alice', tenant='acme')}"}
    assert (await home.http.get("/api/tasks", headers=headers)).status_code == 200
    refused = await home.http.get("/api/tasks", headers={"authorization": f"Bearer {home.token('alice')}"})
    assert (refused.status_code, refused.json()["reason_id"]) == (403, "killed")
    held.gate.set()
    assert state(await bob) == "TASK_STATE_COMPLETED"


async def test_only_operators_kill_and_nobody_themselves(home: House, held: Held) -> None:
    refused = await kill(home, "agent", "sales", user="alice")
    assert (refused.status_code, refused.json()["reason_id"]) == (403, "user-lacks-permission")
    assert (await kill(home, "user", "admin")).json()["reason_id"] == "not-yourself"
    assert (await kill(home, "agent", "nobody")).status_code == 404
    assert (await kill(home, "server", "sales")).status_code == 404
    assert (await kill(home, "planet", "sales")).status_code == 422
    assert (await kill(home, "agent", "sales", lift=True)).status_code == 404
    running = asyncio.create_task(home.send(home.token("admin"), "sales", "hello"))
    await until(lambda: len(held.tokens) == 1)
    hop = (await home.exchange("sales", held.tokens[0], "/mcp", "policy:write")).json().get("access_token", "")
    answer = await home.http.post("/api/kill", json={"kind": "user", "name": "bob"}, headers={"authorization": f"Bearer {hop}"})
    assert answer.status_code in (401, 404)
    held.gate.set()
    await running
    first, second = await killed(home, "agent", "sales"), await killed(home, "agent", "sales", reason="again")
    assert first["id"] == second["id"] and len(await records(home, "kill")) == 1


async def test_a_subject_that_two_issuers_may_mean_has_to_be_named_whole(tmp_path: Path, database_url: str) -> None:
    other = {"issuer": "https://idp.test", "jwks_url": "https://idp.test/jwks"}
    async with house(tmp_path / "home", database_url, identity={"development": "on", "issuers": [other]}) as home:
        told = (await kill(home, "user", "alice")).json()
        assert told["reason_id"] == "ambiguous" and ALICE in told["detail"] and "default|https://idp.test|alice" in told["detail"]
        await home.agent(CallbackAgent("sales"))
        await home.send(home.token("alice"), "sales", "hello")
        assert (await killed(home, "user", "alice"))["name"] == ALICE
        assert (await killed(home, "user", "default|https://idp.test|alice"))["name"] == "default|https://idp.test|alice"


async def test_a_kill_goes_on_though_nothing_can_be_kept_and_outlives_a_restart(tmp_path: Path, database_url: str) -> None:
    worker = Held("sales")
    async with house(tmp_path / "home", database_url) as home:
        await home.agent(worker.agent)
        running = asyncio.create_task(home.send(home.token("alice"), "sales", "hello"))
        await until(lambda: len(worker.tokens) == 1)
        spool = home.gateway.settings.home / FILE_NAME
        async with read_only(home.gateway.database):
            made = await killed(home, "user", "alice")
            headers = {"authorization": f"Bearer {home.token('alice')}"}
            assert spool.exists() and (await home.http.get("/api/tasks", headers=headers)).status_code == 403
            await asyncio.wait([running], timeout=60)
        await until(lambda: not spool.exists(), every=0.05)
        (record,) = await records(home, "kill")
        assert record["spooled"] and record["kill_id"] == made["id"]
        query = select(tasks.c.state)

        async def over() -> bool:
            return await home.gateway.database.read(lambda connection: connection.execute(query).scalar()) == "TASK_STATE_FAILED"

        await until(over, every=0.05)
    worker.gate.set()
    async with house(tmp_path / "home", database_url) as again:
        assert "error" in await again.send(again.token("alice"), "sales", "hello")


async def test_killing_a_person_ends_waiting_tasks_and_silences_webhooks(home: House, held: Held) -> None:
    running = asyncio.create_task(home.send(home.token("alice"), "sales", "hello"))
    await until(lambda: len(held.tokens) == 1)
    database = home.gateway.database
    held.gate.set()
    task = (await running)["result"]["task"]
    waits = tasks.update().where(tasks.c.id == task["id"]).values(state=TaskState.INPUT_REQUIRED.value)
    mine = {"tenant": "default", "task_id": task["id"]}
    config = {**mine, "id": "p", "owner": ALICE, "agent": "sales", "url": "http://127.0.0.1:9/", "secrets": "{}"}
    delivery = {**mine, "config_id": "p", "seq": 1, "id": "n", "attempts": 1, "state": "pending", "reason": ""}
    later = {"next_at": now_us() + 10**12, "created": 1, "updated": 1}
    await database.write(lambda batch: batch.connection.execute(waits))
    await database.write(lambda batch: batch.add(push_configs, {**config, "version": "1.0", "cursor": 9, "live": 1, "created": 1}))
    await database.write(lambda batch: batch.add(deliveries, {**delivery, **later}))
    assert (await killed(home, "user", "alice"))["ended"] == 1
    read = database.read
    assert await read(lambda c: c.execute(select(tasks.c.state)).scalar()) == "TASK_STATE_FAILED"
    assert await read(lambda c: c.execute(select(push_configs.c.live)).scalar()) == 0
    assert await read(lambda c: c.execute(select(deliveries.c.state)).scalar()) == "dead"


# a parked call and a session of the legacy era
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_sessions_streams_and_parked_calls_of_a_killed_person_end(open_home: House) -> None:
    await upstream(open_home, "legacy", Talker().server)
    asked = await post(open_home, "carol", *modern("tools/call", {"name": "greet", "arguments": {}}, ABLE), "/mcp/desk")
    assert asked.json()["result"]["resultType"] == "input_required"
    shown = await session(open_home, "carol")
    bearer = {"authorization": f"Bearer {open_home.token('carol')}", "accept": "text/event-stream"}
    headers = {**bearer, "mcp-session-id": shown, "mcp-protocol-version": "2025-11-25"}
    async with httpx.AsyncClient(base_url=open_home.url, timeout=60) as http, http.stream("GET", "/mcp/desk", headers=headers) as listening:
        assert listening.status_code == 200
        await killed(open_home, "user", "carol")
        async for _ in listening.aiter_bytes():
            pass  # until it ends
    count = await open_home.gateway.database.read(lambda c: len(c.execute(select(mcp_sessions.c.id)).all()))
    assert count == 0
    assert open_home.gateway.calls.parts.in_flight.call_grants == {}


async def delegated(here: House, there: House, worker: Held) -> "asyncio.Task[Any]":
    """alice's message to an agent that has sent a worker, in a process where nobody kills or revokes."""

    async def delegate(token: str, text: str) -> str:
        mine = await there.exchanged("front", token, "/agents/worker", "agent:worker")
        return json.dumps(await there.send(mine, "worker", text))

    await here.agent(worker.agent)
    await here.agent(CallbackAgent("front", delegate))
    there.secrets = here.secrets
    await there.gateway.database.refresh_epochs()
    running = asyncio.create_task(there.send(there.token("alice"), "front", "hello"))
    await until(lambda: len(worker.tokens) == 1)
    return running


async def test_what_is_killed_in_one_process_ends_in_another(
    tmp_path: Path, postgres_url: str, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = Held("worker")
    async with two(tmp_path / "home", postgres_url) as (here, there):
        running = await delegated(here, there, worker)
        began = time.monotonic()
        assert (await killed(here, "user", "alice"))["ended"] == 0
        async with asyncio.timeout(60):
            task = (await running)["result"]["task"]
        record_property("killed_elsewhere_s", round(time.monotonic() - began, 3))
        with capsys.disabled():
            print(f" ended there after {time.monotonic() - began:.2f} s", end="")
        assert why(task) == "KILLED"
        await until(lambda: there.gateway.rulings.kills.has_any)
        assert "error" in await there.send(there.token("alice"), "front", "hello")
        worker.gate.set()


async def test_a_revoked_grant_ends_the_turns_under_it_and_below_it_in_every_process(tmp_path: Path, postgres_url: str) -> None:
    worker = Held("worker")
    async with two(tmp_path / "home", postgres_url) as (here, there):
        running = await delegated(here, there, worker)
        query = select(grants_table.c.id).where(grants_table.c.parent_id == "")
        root = await here.gateway.database.read(lambda connection: connection.execute(query).scalar())
        headers = {"authorization": f"Bearer {here.token('alice')}"}
        assert (await here.http.delete(f"/api/grants/{root}", headers=headers)).status_code == 204
        async with asyncio.timeout(60):
            task = (await running)["result"]["task"]
        assert task["status"]["state"] == "TASK_STATE_FAILED" and why(task) == "REVOKED"
        states = select(tasks.c.state)

        async def over() -> bool:
            rows = await here.gateway.database.read(lambda connection: connection.execute(states).scalars().all())
            return set(rows) == {"TASK_STATE_FAILED"}

        await until(over, every=0.05)
        worker.gate.set()


async def test_a_revocation_ends_turns_here_though_nothing_can_be_kept(home: House, held: Held) -> None:
    running = asyncio.create_task(home.send(home.token("alice"), "sales", "hello"))
    await until(lambda: len(held.tokens) == 1)
    grant_id = await home.gateway.database.read(lambda connection: connection.execute(select(grants_table.c.id)).scalar())
    async with read_only(home.gateway.database):
        headers = {"authorization": f"Bearer {home.token('alice')}"}
        assert (await home.http.delete(f"/api/grants/{grant_id}", headers=headers)).status_code == 204
        await asyncio.wait([running], timeout=60)
        assert running.done()
