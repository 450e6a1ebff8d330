"""Two people at once, over pooled sessions: nobody's token, session, answer or event ever reaches the other."""

import asyncio
import base64
import json
from collections import defaultdict
from typing import Any

import httpx
import pytest

from registry.cards.card import Family, McpTool, RegistrationStatus
from registry.rows import Candidate
from tests.fakes.house import URL, CallbackAgent, House
from tests.fakes.mcp_servers import Gate, mcp_server

USERS = ("first", "second")  # both are members: whoever has no roles of their own is


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, unverified."""
    part = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


async def legacy_server(home: House) -> Gate:
    """A server of the reference implementation that speaks of sessions, and remembers what each session brought."""
    url, gate = await home.stack.enter_async_context(mcp_server("legacy"))
    entry = Candidate(
        tenant="default",
        name="inventory",
        family=Family.SERVER,
        kind="mcp",
        url=url,
        owner="operator",
        status=RegistrationStatus.ACTIVE,
        facts={"era": "legacy", "protocol_version": "2025-11-25"},
        tools=tuple(McpTool(tool, {"name": tool, "inputSchema": {"type": "object"}}) for tool in ("note", "echo")),
    )
    await home.gateway.registry.add(entry)
    await home.gateway.database.refresh_epochs()
    return gate


async def at_once(width: int, acts: list[Any]) -> list[Any]:
    """All of them, so many at a time, the users interleaved as they come."""
    places = asyncio.Semaphore(width)

    async def in_turn(act: Any) -> Any:
        async with places:
            return await act

    async with asyncio.timeout(300):
        return await asyncio.gather(*(in_turn(act) for act in acts))


def texts_of(answer: httpx.Response) -> list[str]:
    assert "result" in answer.json(), answer.text
    return [part["text"] for part in answer.json()["result"]["content"]]


@pytest.mark.parametrize("width", [16, 64])
async def test_each_person_has_sessions_of_their_own_at_an_upstream(home: House, width: int) -> None:
    """The same JSON-RPC ids, the same tool, the same moment; and sessions that the upstream forgets in between."""
    gate = await legacy_server(home)
    tokens = {user: home.token(user, scope="tool:inventory.*") for user in USERS}
    wanted = [(user, f"{user}-{number}") for number in range(width) for user in USERS]
    for round_ in range(2):
        gate.forgets = 3 * round_
        calls = [home.call(tokens[user], "/mcp/inventory", "note", {"text": f"{text}.{round_}"}) for user, text in wanted]
        for (user, text), answer in zip(wanted, await at_once(width, calls), strict=True):
            if round_ and answer.json().get("error", {}).get("code") == -32015:
                continue  # a session that was forgotten just as it was opened anew
            brought = texts_of(answer)
            assert f"{text}.{round_}" in brought
            assert all(one.startswith(f"{user}-") for one in brought)
    gate.forgets = 0
    echoes = [home.call(tokens[user], "/mcp/inventory", "echo", {"text": text}) for user, text in wanted]
    for (_, text), answer in zip(wanted, await at_once(width, echoes), strict=True):
        assert texts_of(answer) == [text]
    seen = json.dumps(gate.requests)
    assert not any(token in seen for token in tokens.values())
    assert len(gate.sessions) >= 2


@pytest.mark.parametrize("width", [16, 64])
async def test_each_agent_call_carries_its_user_and_each_stream_shows_its_own_user(home: House, width: int) -> None:
    async def says_who(token: str, text: str) -> str:
        await asyncio.sleep(0)
        return f"{claims_of(token)['sub']} asked {text}"

    agent = await home.agent(CallbackAgent("support", says_who))
    tokens = {user: home.token(user) for user in USERS}
    wanted = [(user, f"{user}-{number}") for number in range(width) for user in USERS]
    methods = ("SendMessage", "SendStreamingMessage")
    message = {"messageId": "m1", "role": "ROLE_USER"}
    calls = [
        home.rpc(
            "/agents/support",
            tokens[user],
            methods[number % 4 // 2],
            {"message": {**message, "parts": [{"text": text}]}},
            **{"A2A-Version": "1.0"},
        )
        for number, (user, text) in enumerate(wanted)
    ]
    tasks: dict[str, set[str]] = defaultdict(set)
    for (user, text), answer in zip(wanted, await at_once(width, calls), strict=True):
        documents = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]
        results = [document["result"] for document in documents or [answer.json()]]
        assert f"{user} asked {text}" in json.dumps(results)
        (task_id,) = {event.get("id") or event["taskId"] for result in results for event in result.values()}
        tasks[user].add(task_id)
        others = [one for other, one in wanted if one != text and f'{other} asked {one}"' in json.dumps(results)]
        assert others == []
    assert len(tasks["first"]) == len(tasks["second"]) == width
    assert not tasks["first"] & tasks["second"]
    assert len(set(agent.tokens)) == 2 * width  # a hop token is of one task
    for token, request in zip(agent.tokens, agent.requests, strict=True):
        text = request["params"]["message"]["parts"][0]["text"]
        assert text.startswith(f"{claims_of(token)['sub']}-")
        assert claims_of(token)["task"] in tasks[text.partition("-")[0]]
        assert token not in tokens.values()
    await _assert_not_to_be_seen(home, tasks, tokens)


async def _assert_not_to_be_seen(home: House, tasks: dict[str, set[str]], tokens: dict[str, str]) -> None:
    """Each sees all of their own tasks and none of the other's, however they ask."""
    for user, other in (USERS, USERS[::-1]):
        headers = {"authorization": f"Bearer {tokens[user]}"}
        listed: set[str] = set()
        cursor = ""
        while cursor is not None:
            page = (await home.http.get("/api/tasks", params={"cursor": cursor} if cursor else {}, headers=headers)).json()
            listed |= {task["id"] for task in page["items"]}
            cursor = page["next"]
        assert listed == tasks[user]
        theirs = sorted(tasks[other])[:5]
        answers = [await home.send_get(tokens[user], "support", task_id) for task_id in (*theirs, "t_never_was")]
        assert all(answer == answers[-1] for answer in answers)
        for task_id in theirs:
            assert (await home.http.get(f"/api/tasks/{task_id}/events", headers=headers)).status_code == 404


async def test_one_persons_cached_token_or_ruling_is_never_anothers(home: House) -> None:
    """The same call, again and again, by one who may and one who may not, and by tokens that can less."""
    server = await home.server("inventory", "check", "reserve")
    alice, bob = home.token("alice"), home.token("bob")
    narrow = home.token("alice", scope="tool:inventory.check")
    wanted = [(alice, "reserve", True), (bob, "reserve", False), (narrow, "reserve", False), (bob, "check", True), (narrow, "check", True)]
    calls = [home.call(token, "/mcp/inventory", tool, {"n": number}) for number in range(12) for token, tool, _ in wanted]
    answers = await at_once(32, calls)
    assert [("result" in answer.json()) for answer in answers] == [may for _ in range(12) for _, _, may in wanted]
    assert len(server.calls) == 36
    assert URL not in json.dumps(server.calls)
