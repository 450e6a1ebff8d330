"""Names that are made to be mistaken for others, and things that nobody registered."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.cards import card
from tests.fakes.house import CAPABILITIES, House, ToolServer, house
from tests.fakes.reception import Reception
from tests.fakes.upstream import Upstream

ELSEWHERE = "https://93.184.215.14/"  # public, and never called
LOOKALIKES = [
    "send_email",
    "Send_Email",
    "sеnd_email",
    "send_email\u200b",
    "send email",
    "send_email ",
    "crm__read",
    "_",
    "x" * 80,
    "x" * 81,
]


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url) as built:
        yield built


async def list_tools(home: House, path: str = "/mcp") -> list[str]:
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
    answer = await home.rpc(path, home.token("admin"), "tools/list", {"_meta": CAPABILITIES}, **headers)
    return [tool["name"] for tool in answer.json()["result"]["tools"]]


# attack REG-05
async def test_every_tool_has_a_name_of_its_own_that_leads_to_it_alone(home: House) -> None:
    servers: dict[str, ToolServer] = {"crm": await home.server("crm", *LOOKALIKES), "crm-2": await home.server("crm-2", "send_email")}
    names = await list_tools(home)
    assert len(names) == len(set(names)) == len(LOOKALIKES) + 1
    assert all(name.isascii() and len(name) <= 64 for name in names)
    assert len({name for name in names if name.casefold() == "crm_send_email"}) == 2  # told apart by case alone, and both still there
    reached = []
    for name in names:
        answer = await home.call(home.token("admin"), "/mcp", name, {"from": name})
        assert answer.status_code == 200, name
        (owner,) = [owner for owner, server in servers.items() if server.calls and server.calls[-1][1] == {"from": name}]
        assert name.startswith(f"{owner}_")
        reached.append((owner, servers[owner].calls[-1][0]))
    assert sorted(reached) == sorted([*(("crm", tool) for tool in LOOKALIKES), ("crm-2", "send_email")])
    for wrong in ("send_email", "CRM_send_email", "crm_send_emaiI", "crm__send_email", "crm.send_email", "tools_call"):
        answer = await home.call(home.token("admin"), "/mcp", wrong, {})
        assert answer.json()["error"]["code"] == -32602, wrong


# attack REG-05, REG-01
async def test_no_name_looks_like_one_that_is_there_already(home: House) -> None:
    await home.server("crm", "read")
    desk = Reception(home)
    odd = ["CRM", "crm_", "crm__read", "сrm", "crm\u200b", "crm.x", "crm ", "-" * 65]
    for name in [*odd, "virtual", "sandbox", "memory", "interlock"]:
        refused = await desk.post("/api/agents", card=card(ELSEWHERE, "1.0"), name=name)
        assert (refused.status_code, refused.json()["reason_id"]) == (422, "bad-name"), name
        refused = await desk.post("/api/servers", url=ELSEWHERE, name=name)
        assert (refused.status_code, refused.json()["reason_id"]) == (422, "bad-name"), name
    taken = await desk.post("/api/agents", card=card(ELSEWHERE, "1.0"), name="crm")
    assert (taken.status_code, taken.json()["reason_id"]) == (409, "name-taken")


# attack REG-07
async def test_nothing_is_called_that_is_not_registered(home: House) -> None:
    async def answer_never(_head: bytes, _reader: Any, _writer: Any) -> None:
        raise AssertionError("it was called")

    token = home.token("admin")
    async with Upstream(answer_never) as stranger:
        for name in (stranger.url, f"{stranger.url}/mcp", "stdio:", "stdio:/bin/sh", "/bin/sh", "..%2f..%2fbin%2fsh"):
            for path in (f"/agents/{name}", f"/mcp/{name}"):
                answer = await home.rpc(path, token, "SendMessage", {}, **{"A2A-Version": "1.0"})
                assert answer.status_code in (400, 404, 405), path
            called = await home.call(token, "/mcp", name, {"url": stranger.url, "command": "/bin/sh"})
            assert called.json()["error"]["code"] == -32602
        message = await home.send(token, "nobody", "hi", metadata={"url": stranger.url, "serverUrl": stranger.url})
        assert message["error"]["code"] == -32011
        for path, body in (
            ("/api/agents/test", {"url": stranger.url}),
            ("/api/servers/test", {"command": "/bin/sh"}),
            ("/mcp/test/connection", {"command": "/bin/sh"}),
        ):
            answer = await home.http.post(path, content=json.dumps(body), headers={"authorization": f"Bearer {token}"})
            assert answer.status_code in (404, 405), path
        assert stranger.connections == 0
