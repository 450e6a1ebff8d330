"""Calls that wait for answers: what brings them back, who may, how often, where, and what ends them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError
from starlette.responses import JSONResponse, Response

from gateway.ingress.mcp_server.elicitation import pending_calls as parked
from gateway.ingress.mcp_server.protocol.errors import TRACE_KEY
from registry.cards.card import Family, RegistrationStatus
from registry.rows import Candidate, offer_fields
from tests.fakes.house import TRACE, House, two
from tests.fakes.mcp_clients import upstream
from tests.fakes.mcp_servers import scripted_server
from tests.fakes.mcp_talkers import Name, Talker
from tests.fakes.mcp_wire import ABLE, document, modern, post, session

SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ADA = {"action": "accept", "content": {"name": "Ada"}}


async def asked(home: House, user: str = "admin", tool: str = "greet", path: str = "/mcp/desk", **params: Any) -> dict[str, Any]:
    answer = await post(home, user, *modern("tools/call", {"name": tool, "arguments": {}, **params}, ABLE), path)
    found: dict[str, Any] = answer.json()
    return found


async def questioned(home: House, user: str = "admin", **more: Any) -> tuple[str, str]:
    """(key of the only question, requestState)."""
    result = (await asked(home, user, **more))["result"]
    assert result["resultType"] == "input_required"
    (key,) = result["inputRequests"]
    assert result["inputRequests"][key]["method"] == "elicitation/create"
    return key, result["requestState"]


def said(answer: dict[str, Any]) -> str:
    text: str = answer["result"]["content"][0]["text"]
    return text


@SQLITE
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_answers_that_are_brought_again_get_the_same_result_again(open_home: House, era: Any) -> None:
    await upstream(open_home, era, Talker().server)
    key, state = await questioned(open_home)
    first = await asked(open_home, inputResponses={key: ADA}, requestState=state)
    again = await asked(open_home, inputResponses={key: {"action": "decline"}} if era == "legacy" else {key: ADA}, requestState=state)
    assert said(first) == said(again) == "hello Ada"


@SQLITE
async def test_two_that_bring_the_same_answers_at_once_get_one_result(open_home: House) -> None:
    await upstream(open_home, "legacy", Talker().server)
    key, state = await questioned(open_home)
    both = await asyncio.gather(*(asked(open_home, inputResponses={key: ADA}, requestState=state) for _ in range(2)))
    assert [said(answer) for answer in both] == ["hello Ada"] * 2


# attack: a requestState that was forged, replayed on another request, or is somebody else's
@SQLITE
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_state_is_good_for_one_person_one_path_and_one_request(open_home: House, era: Any) -> None:
    await upstream(open_home, era, Talker().server)
    key, state = await questioned(open_home)
    kid, _, box = state.partition(".")
    flipped = f"{kid}.{box[:-6]}{'A' if box[-6] != 'A' else 'B'}{box[-5:]}"
    answers = {key: ADA}
    wrong = [
        await asked(open_home, inputResponses=answers, requestState=flipped),
        await asked(open_home, inputResponses=answers, requestState=box),
        await asked(open_home, inputResponses=answers, requestState=f"{kid}."),
        await asked(open_home, inputResponses=answers, requestState=""),
        await asked(open_home, inputResponses=answers, requestState=7),
        await asked(open_home, inputResponses=answers, requestState="größe.AAAA"),
        await asked(open_home, inputResponses=answers, requestState="x" * 200_000),
        await asked(open_home, "mel", inputResponses=answers, requestState=state),
        await asked(open_home, tool="think", inputResponses=answers, requestState=state),
        await asked(open_home, arguments={"other": 1}, inputResponses=answers, requestState=state),
        await asked(open_home, tool="desk_greet", path="/mcp", inputResponses=answers, requestState=state),
    ]
    assert {answer["error"]["code"] for answer in wrong} == {-32602}
    assert len({answer["error"]["message"] for answer in wrong}) == 1
    assert said(await asked(open_home, inputResponses=answers, requestState=state)) == "hello Ada"  # none of them used it up


@SQLITE
async def test_whoever_may_no_longer_call_the_tool_may_not_go_on_with_it(open_home: House) -> None:
    await upstream(open_home, "legacy", Talker().server)
    key, state = await questioned(open_home, "mel")
    await open_home.gateway.registry.remove("default", "desk")
    await open_home.gateway.database.refresh_epochs()
    gone = await asked(open_home, "mel", inputResponses={key: ADA}, requestState=state)
    assert "error" in gone and gone["error"]["code"] in (-32602, -32011)


@SQLITE
@pytest.mark.parametrize("responses", [{}, {"other": ADA}, {"elicitation-1": 5}])
async def test_an_answer_that_is_missing_is_asked_for_again(open_home: House, responses: Any) -> None:
    await upstream(open_home, "legacy", Talker().server)
    key, state = await questioned(open_home)
    again = (await asked(open_home, inputResponses=responses, requestState=state))["result"]
    assert again["resultType"] == "input_required" and set(again["inputRequests"]) == {key} and again["requestState"] != state
    assert said(await asked(open_home, inputResponses={key: ADA, "more": 1}, requestState=again["requestState"])) == "hello Ada"


@SQLITE
async def test_one_person_cannot_have_more_waiting_than_their_share(open_home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parked, "CALLS_PER_HOLDER", 2)
    await upstream(open_home, "legacy", Talker().server)
    states = [await questioned(open_home) for _ in range(2)]
    answer = await post(open_home, "admin", *modern("tools/call", {"name": "greet", "arguments": {}}, ABLE))
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, -32012)
    await questioned(open_home, "mel")
    key, state = states[0]
    assert said(await asked(open_home, inputResponses={key: ADA}, requestState=state)) == "hello Ada"


@SQLITE
async def test_what_nobody_answers_ends_by_itself(open_home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parked, "ANSWER_SECONDS", 1.0)
    await upstream(open_home, "legacy", Talker().server)
    key, state = await questioned(open_home)
    await asyncio.sleep(1.1)  # the time that is over is the claim
    late = await asked(open_home, inputResponses={key: ADA}, requestState=state)
    assert late["error"]["code"] == -32602


@SQLITE
async def test_a_capability_that_is_lacking_is_named_before_anything_is_asked(open_home: House) -> None:
    await upstream(open_home, "modern", Talker().server, "new")
    await upstream(open_home, "legacy", Talker().server, "old")
    body, headers = modern("tools/call", {"name": "think", "arguments": {}}, {"elicitation": {}})
    for path in ("/mcp/new", "/mcp/old"):
        answer = await post(open_home, "admin", body, headers, path)
        found = answer.json()
        if "error" in found:
            assert (answer.status_code, found["error"]["code"]) == (400, -32021)
            assert found["error"]["data"] == {"requiredCapabilities": {"sampling": {}}, "trace_id": TRACE}
        else:
            assert path == "/mcp/old" and found["result"]["isError"]  # it looks at what was declared, and fails by itself


@SQLITE
async def test_a_server_that_asks_what_was_not_declared_is_not_heard(open_home: House) -> None:
    question = {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}
    result = {"resultType": "input_required", "inputRequests": {"q": question}, "requestState": "theirs"}

    async def answer(request: dict[str, Any]) -> Response:
        return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "result": result})

    url = await open_home.stack.enter_async_context(scripted_server(answer))
    tools = offer_fields({"tools": [{"name": "think", "inputSchema": {"type": "object"}}]})
    given: dict[str, Any] = {"tenant": "default", "name": "bold", "family": Family.SERVER, "kind": "mcp", "url": url, "owner": "operator"}
    await open_home.gateway.registry.add(Candidate(**given, status=RegistrationStatus.ACTIVE, facts={"era": "modern"}, **tools))
    await open_home.gateway.database.refresh_epochs()
    for capabilities in ({}, {"elicitation": {}}):
        refused = await post(open_home, "admin", *modern("tools/call", {"name": "think", "arguments": {}}, capabilities), "/mcp/bold")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32021)
        assert refused.json()["error"]["data"] == {"requiredCapabilities": {"sampling": {}}, "trace_id": TRACE}
    asked = await post(open_home, "admin", *modern("tools/call", {"name": "think", "arguments": {}}, ABLE), "/mcp/bold")
    assert asked.json()["result"]["inputRequests"] == {"q": question}
    assert "theirs" not in asked.text  # a server's state is no more for clients to read than to write


MALFORMED: list[dict[str, Any]] = [
    {},
    {"inputRequests": {}},
    {"inputRequests": []},
    {"inputRequests": None, "requestState": "s"},
    {"inputRequests": {"q": 5}},
    {"inputRequests": {"q": {"params": {}}}},
    {"inputRequests": {"q": {"method": 7, "params": {}}}},
    {"inputRequests": {"q": {"method": "elicitation/create", "params": "Who?"}}},
    {"inputRequests": {f"q{number}": {"method": "roots/list"} for number in range(17)}},
    {"inputRequests": {"q": {"method": "roots/list"}}, "requestState": {"theirs": 1}},
    {"inputRequests": {"q": {"method": "roots/list"}}, "requestState": None},
]


@SQLITE
@pytest.mark.parametrize("asking", MALFORMED)
async def test_a_server_that_asks_in_no_known_way_is_at_fault_itself(open_home: House, asking: dict[str, Any]) -> None:
    async def answer(request: dict[str, Any]) -> Response:
        if request["method"] == "initialize":
            return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32601, "message": "no"}}, 404)
        return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "result": {"resultType": "input_required", **asking}})

    await open_home.server("odd", "think", url=(await open_home.stack.enter_async_context(scripted_server(answer))).removesuffix("/mcp"))
    call = {"name": "think", "arguments": {}}
    newer = await post(open_home, "admin", *modern("tools/call", call, ABLE), "/mcp/odd")
    mine = {"mcp-session-id": await session(open_home, path="/mcp/odd", capabilities=ABLE)}
    older = await post(open_home, "admin", document("tools/call", call), mine, "/mcp/odd")
    assert [answer.json()["error"]["code"] for answer in (newer, older)] == [-32015, -32015]


async def test_any_process_takes_the_answers(tmp_path: Path, postgres_url: str) -> None:
    async with two(tmp_path / "home", postgres_url) as (one, other):
        await upstream(one, "legacy", Talker().server)
        await other.gateway.database.refresh_epochs()
        key, state = await questioned(one)
        there = await asked(other, inputResponses={key: ADA}, requestState=state)
        again = [await asked(home, inputResponses={key: ADA}, requestState=state) for home in (one, other)]
        assert [said(answer) for answer in (there, *again)] == ["hello Ada"] * 3
        key, state = await questioned(other)
        wrong = await asked(one, "mel", inputResponses={key: ADA}, requestState=state)
        assert wrong["error"]["code"] == -32602
        assert said(await asked(one, inputResponses={key: ADA}, requestState=state)) == "hello Ada"


async def test_what_fails_elsewhere_is_told_as_if_it_failed_here(tmp_path: Path, postgres_url: str) -> None:
    async with two(tmp_path / "home", postgres_url) as (one, other):
        await upstream(one, "legacy", Talker().server)
        await other.gateway.database.refresh_epochs()
        key, state = await questioned(one)
        here = await asked(one, inputResponses={key: {"action": "cancel"}}, requestState=state)
        key, state = await questioned(one)
        there = await asked(other, inputResponses={key: {"action": "cancel"}}, requestState=state)
        assert here.get("error") == there.get("error") and here.get("result") == there.get("result")


@pytest.mark.parametrize("data", ["SKU-7", {"sku": 7}])
async def test_a_servers_error_elsewhere_keeps_its_data(tmp_path: Path, postgres_url: str, data: Any) -> None:
    talker = Talker()

    @talker.server.tool()
    async def refuse(context: Context) -> str:
        await context.elicit("Who are you?", Name)
        raise MCPError(-32050, "no such item", data)

    async with two(tmp_path / "home", postgres_url) as (one, other):
        await upstream(one, "legacy", talker.server)
        await other.gateway.database.refresh_epochs()
        errors = []
        for home in (one, other):
            key, state = await questioned(one, tool="refuse")
            errors.append((await asked(home, tool="refuse", inputResponses={key: ADA}, requestState=state))["error"])
    shown = {**data, TRACE_KEY: TRACE} if isinstance(data, dict) else data
    assert errors == [{"code": -32050, "message": "no such item", "data": shown}] * 2


async def test_whose_process_is_no_more_is_told_at_once_to_begin_again(tmp_path: Path, postgres_url: str) -> None:
    async with two(tmp_path / "home", postgres_url) as (one, other):
        await upstream(one, "legacy", Talker().server)
        await other.gateway.database.refresh_epochs()
        key, state = await questioned(one)
        loops = list(one.gateway.periodic_tasks._loops)
        for task in loops:
            task.cancel()  # it gives no sign of life any more, which would bring its row back
        await asyncio.gather(*loops, return_exceptions=True)
        await one.gateway.database.write(lambda batch: batch.run("DELETE FROM processes WHERE id = ?", (one.gateway.process,)))
        await one.gateway.lifecycle.stop()
        async with asyncio.timeout(60):
            lost = await asked(other, inputResponses={key: ADA}, requestState=state)
        assert lost["error"]["code"] == -32602 and "start again" in lost["error"]["message"]
