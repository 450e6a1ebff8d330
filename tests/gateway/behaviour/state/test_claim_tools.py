"""The built-in server `subjects`: any agent claims subjects and looks at them through MCP, with the rights of the asker."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.house import CAPABILITIES, CallbackAgent, House, house

ROLES = {"operator": ["*"], "desk": ["state:write:customer/*", "state:read:customer/*", "agent:*", "tool:subjects.*"], "guest": ["tool:*"]}
USERS = {"ann": {"roles": ["desk"]}, "bob": {"roles": ["desk"]}, "gus": {"roles": ["guest"]}}


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url, roles=ROLES, users=USERS) as built:
        yield built


async def use(home: House, bearer: str, tool: str, /, **arguments: Any) -> Any:
    answer = (await home.call(bearer, "/mcp/subjects", tool, arguments)).json()
    return answer["result"]["structuredContent"] if "result" in answer else answer


async def test_an_agent_claims_a_subject_in_its_task_and_others_are_refused(home: House) -> None:
    taken: list[Any] = []

    async def act(token: str, text: str) -> str:
        hop = await home.exchanged("support", token, "/mcp/subjects", "tool:subjects.* state:write:customer/*")
        taken.append(await use(home, hop, "claim", subject="customer:42", purpose="ticket 7"))
        return "ok"

    await home.agent(CallbackAgent("support", act))
    await home.send(home.token("ann"), "support", "go")
    assert taken[0]["holder"]["agent"] == "support" and taken[0]["holder"]["task_id"].startswith("t_")
    refused = await use(home, home.token("bob"), "claim", subject="customer:42")
    assert refused["error"]["reason_id"] == "claim-denied" and "ann's agent support has claimed" in refused["error"]["detail"]


async def test_a_claim_is_renewed_listed_and_released_by_tools(home: House) -> None:
    ann = home.token("ann")
    claim = await use(home, ann, "claim", subject="customer:42", effect="refund")
    renewed = await use(home, ann, "renew_claim", id=claim["id"], token=claim["token"], seconds=900)
    assert renewed["until"] > claim["until"]
    assert [each["id"] for each in (await use(home, ann, "list_claims", subject="customer:42"))["items"]] == [claim["id"]]
    assert (await use(home, ann, "release_claim", id=claim["id"], token=claim["token"]))["state"] == "ended"
    assert (await use(home, ann, "renew_claim", id=claim["id"], token=claim["token"]))["error"]["reason_id"] == "claim-lost"


async def test_agents_read_a_subject_before_they_act(home: House) -> None:
    ann = home.token("ann")
    await use(home, ann, "claim", subject="customer:42", purpose="ticket 7")
    shown = await use(home, ann, "show", subject="customer:42")
    params = {"uri": "subject://customer:42", "_meta": CAPABILITIES}
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "resources/read", "mcp-name": params["uri"]}
    read = (await home.rpc("/mcp/subjects", home.token("admin"), "resources/read", params, **headers)).json()
    assert shown["claims"][0]["purpose"] == "ticket 7"
    assert json.loads(read["result"]["contents"][0]["text"])["claims"] == shown["claims"]


async def test_the_permission_of_the_tool_is_not_that_of_the_subject(home: House) -> None:
    gus = home.token("gus")
    for tool in ("claim", "show"):
        assert (await use(home, gus, tool, subject="customer:42"))["error"]["reason_id"] == "user-lacks-permission"
    assert (await use(home, gus, "list_claims", subject="customer:42"))["items"] == []
    assert (await use(home, home.token("ann"), "claim", subject="../42"))["error"]["reason_id"] == "bad-request"
