"""One person, and one tenant, that asks for all there is: they are told 429, and everybody else goes on."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.a2a_doors import DOORS, ask, message_of, said
from tests.fakes.clock import leap
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.waiting import until

TURNS = 450
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Hanging:
    """An agent that answers those who say `hello` at once, and anybody else when the test lets it."""

    def __init__(self, name: str = "sales") -> None:
        self.gate = asyncio.Event()
        self.begun = 0
        self.agent = CallbackAgent(name, self._act)

    async def _act(self, token: str, text: str) -> str:
        if text != "hello":
            self.begun += 1
            await self.gate.wait()
        return "done"


@asynccontextmanager
async def small(tmp_path: Path, database_url: str, **limits: Any) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url, limits=limits) as home:
        yield home


async def _send(home: House, user: str, text: str, tenant: str = "default", agent: str = "sales") -> httpx.Response:
    headers = {"authorization": f"Bearer {home.token(user, tenant=tenant)}", "a2a-version": "1.0"}
    params = {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": text}]}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
    return await home.http.post(f"/agents/{agent}", json=body, headers=headers)


# attack AVL-03
@pytest.mark.parametrize(("people", "share"), [(1, 200), (30, 298)])
async def test_450_turns_that_hang_leave_room_for_everybody_else(home: House, people: int, share: int) -> None:
    hanging = Hanging()
    await home.agent(hanging.agent)
    await home.server("inventory", "check")
    flood = [asyncio.create_task(_send(home, f"greedy{number % people}", "hang")) for number in range(TURNS)]
    await until(lambda: hanging.begun == share and home.gateway.slots.waiting_count == TURNS - share)
    assert (await _send(home, "bob", "hello")).status_code == 200
    assert (await home.call(home.token("bob"), "/mcp/inventory", "check", {})).status_code == 200
    leap(10)
    await until(lambda: sum(task.done() for task in flood) == TURNS - share)
    refused = [task.result() for task in flood if task.done()]
    assert {answer.status_code for answer in refused} == {429} and all(answer.headers["retry-after"] for answer in refused)
    assert {answer.json()["error"]["data"][0]["reason"] for answer in refused} == {"TOO_MANY_CALLS"}
    hanging.gate.set()
    assert Counter(answer.status_code for answer in await asyncio.gather(*flood))[200] == share
    assert (await _send(home, "greedy0", "hello")).status_code == 200


# attack AVL-03
@on_sqlite
async def test_a_tenant_of_many_people_leaves_room_for_another_tenant(home: House) -> None:
    hanging = Hanging()
    await home.agent(hanging.agent)
    await home.registered("sales", home.gateway.registry.find("default", "sales").url, tenant="other")
    flood = [asyncio.create_task(_send(home, f"greedy{number}", "hang")) for number in range(TURNS)]
    await until(lambda: hanging.begun == 300 and home.gateway.slots.waiting_count == TURNS - 300)
    assert (await _send(home, "olga", "hello", tenant="other")).status_code == 200
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    hanging.gate.set()


@pytest.mark.parametrize("door", DOORS)
@on_sqlite
async def test_whoever_has_used_their_share_is_told_when_to_come_back(tmp_path: Path, database_url: str, door: str) -> None:
    hanging = Hanging()
    async with small(tmp_path, database_url, calls=2, queue_seconds=0) as home:
        await home.agent(hanging.agent)
        params = {"message": message_of(door, "hang")}
        first = asyncio.create_task(ask(home, door, "send", params))
        await until(lambda: hanging.begun == 1)
        refused = await ask(home, door, "send", params)
        assert (refused.status_code, said(door, refused).reason, refused.headers["retry-after"]) == (429, "TOO_MANY_CALLS", "1")
        details = refused.json()["error"]["data" if door.startswith("jsonrpc") else "details"]
        assert details[1] == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}
        hanging.gate.set()
        assert (await first).status_code == 200
        assert (await ask(home, door, "send", params)).status_code == 200


@on_sqlite
async def test_a_tool_call_beyond_the_share_and_one_when_all_is_taken_are_told_so(tmp_path: Path, database_url: str) -> None:
    hanging = Hanging()
    async with small(tmp_path, database_url, calls=2, queue_seconds=0) as home:
        await home.agent(hanging.agent)
        await home.server("inventory", "check")
        turns = [asyncio.create_task(_send(home, user, "hang")) for user in ("alice", "bob")]
        await until(lambda: hanging.begun == 2)
        mine = await home.call(home.token("alice"), "/mcp/inventory", "check", {})
        assert (mine.status_code, mine.json()["error"]["data"]["reason_id"]) == (429, "too-many-calls")
        others = await home.call(home.token("carol"), "/mcp/inventory", "check", {})
        assert (others.status_code, others.json()["error"]["data"]["reason_id"]) == (503, "overloaded")
        assert others.headers["retry-after"] == str(others.json()["error"]["data"]["retryAfter"]) == "1"
        hanging.gate.set()
        await asyncio.gather(*turns)
        assert (await home.call(home.token("carol"), "/mcp/inventory", "check", {})).status_code == 200


@on_sqlite
async def test_a_turn_that_waited_goes_on_when_another_ends(tmp_path: Path, database_url: str) -> None:
    hanging = Hanging()
    async with small(tmp_path, database_url, calls=2) as home:
        await home.agent(hanging.agent)
        turns = [asyncio.create_task(_send(home, "alice", "hang")) for _ in range(3)]
        await until(lambda: home.gateway.slots.waiting_count == 2)
        hanging.gate.set()
        assert [answer.status_code for answer in await asyncio.gather(*turns)] == [200, 200, 200]
        assert b"interlock_calls_waiting 0.0" in home.gateway.metrics.render()


@on_sqlite
async def test_an_agent_that_may_not_be_known_of_is_unknown_however_busy_it_is(tmp_path: Path, database_url: str) -> None:
    hanging = Hanging()
    async with small(tmp_path, database_url, calls=2, queue_seconds=0) as home:
        await home.agent(hanging.agent)
        turns = [asyncio.create_task(_send(home, user, "hang")) for user in ("alice", "bob")]
        await until(lambda: hanging.begun == 2)
        hidden, missing = await _send(home, "nora", "hello"), await _send(home, "nora", "hello", agent="none")
        assert (hidden.status_code, hidden.json()["error"]["message"]) == (missing.status_code, missing.json()["error"]["message"])
        hanging.gate.set()
        await asyncio.gather(*turns)


@on_sqlite
async def test_a_task_can_be_canceled_while_its_own_turn_takes_the_last_of_the_share(tmp_path: Path, database_url: str) -> None:
    hanging = Hanging()
    async with small(tmp_path, database_url, calls=2, queue_seconds=0) as home:
        await home.agent(hanging.agent)
        turn = asyncio.create_task(_send(home, "alice", "hang"))
        await until(lambda: hanging.begun == 1)
        (task,) = (await home.http.get("/api/tasks", headers={"authorization": f"Bearer {home.token('alice')}"})).json()["items"]
        ended = await home.rpc("/agents/sales", home.token("alice"), "CancelTask", {"id": task["id"]}, **{"A2A-Version": "1.0"})
        assert ended.json()["result"]["status"]["state"] == "TASK_STATE_CANCELED"
        assert (await turn).status_code == 200
        assert (await _send(home, "alice", "hello")).status_code == 200
