"""Claims about modern servers that ask an older client through their results: bounded rounds, whatever the server says."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from adapters.contract import UpstreamFault
from adapters.mcp_client.exchange.rounds import ROUNDS_MAX
from adapters.mcp_client.pool import McpPool
from adapters.mcp_client.wire.messages import McpRefused, McpRequest
from adapters.mcp_client.wire.peer import PeerRefused
from tests.adapters.mcp_client.test_messages_during_calls import talk
from tests.adapters.mcp_client.test_pool import call_of, egress, pool, text
from tests.fakes.mcp_servers import scripted_server
from tests.fakes.peers import ANSWERS, ScriptedPeer

__all__ = ["egress", "pool"]

QUESTION = {"method": "elicitation/create", "params": {"mode": "form", "message": "Who?", "requestedSchema": {}}}
BY_URL = {"method": "elicitation/create", "params": {"mode": "url", "message": "Go", "url": "https://x.example/"}}
DONE = {"resultType": "complete", "content": [{"type": "text", "text": "done"}], "ttlMs": 5, "cacheScope": "public"}


class Asking:
    """A server that knows the modern revision only: `results(n)` is the result of the nth request."""

    def __init__(self, results: Callable[[int], Any]) -> None:
        self.results = results
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, request: dict[str, Any]) -> Response:
        if request["method"] == "initialize":
            return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32601, "message": "no"}}, 404)
        self.seen.append(request)
        return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "result": self.results(len(self.seen))})


def required(requests: Any = None, **rest: Any) -> dict[str, Any]:
    return {"resultType": "input_required", **({} if requests is None else {"inputRequests": requests}), **rest}


async def test_each_repetition_has_another_id_the_answers_and_the_state_as_it_came(pool: McpPool) -> None:
    steps = [required({"a": QUESTION, "b": BY_URL}, requestState="s\u2713"), required({"c": QUESTION}), required(requestState="t"), DONE]
    server, peer = Asking(lambda number: steps[number - 1]), ScriptedPeer()
    async with scripted_server(server) as url:
        answer = json.loads((await pool.call(call_of(url, "modern"), talk("x", peer, False, {"progressToken": 1}, to=1))).result)
    assert answer == {"content": [{"type": "text", "text": "done"}]}
    params = [request["params"] for request in server.seen]
    assert len({str(request["id"]) for request in server.seen}) == 4
    accepted = ANSWERS["elicitation/create"]
    assert [each.get("inputResponses") for each in params] == [None, {"a": accepted, "b": accepted}, {"c": accepted}, {}]
    assert [each.get("requestState") for each in params] == [None, "s\u2713", None, "t"]
    assert {each["arguments"]["to"] for each in params} == {1}
    assert {json.dumps(each["_meta"]["io.modelcontextprotocol/clientCapabilities"]) for each in params} == {json.dumps(peer.capabilities)}
    by_url = peer.asked[1][1]
    assert by_url.pop("elicitationId") and by_url == BY_URL["params"]


async def test_a_server_that_never_has_enough_is_given_up(pool: McpPool) -> None:
    server = Asking(lambda _: required({"a": QUESTION}))
    async with scripted_server(server) as url:
        with pytest.raises(McpRefused):
            await pool.call(call_of(url, "modern"), talk("x", ScriptedPeer(), False))
    assert len(server.seen) == ROUNDS_MAX


@pytest.mark.parametrize(
    "result",
    [
        required(),
        required({}),
        required([]),
        required({"a": 7}),
        required({"a": {"params": {}}}),
        required({"a": {"method": "tools/call", "params": {}}}),
        required({"a": {"method": "elicitation/create", "params": 3}}),
        required({str(number): QUESTION for number in range(17)}),
        {"resultType": "something_else"},
    ],
)
async def test_what_is_no_question_reaches_nobody(pool: McpPool, result: Any) -> None:
    peer = ScriptedPeer()
    async with scripted_server(Asking(lambda _: result)) as url:
        with pytest.raises((McpRefused, UpstreamFault)):
            await pool.call(call_of(url, "modern"), talk("x", peer, False))
    assert not peer.asked


@pytest.mark.parametrize("capabilities", [{}, {"elicitation": {"url": {}}}, {"sampling": {}}])
async def test_a_form_that_the_client_did_not_declare_is_not_shown(pool: McpPool, capabilities: Any) -> None:
    peer = ScriptedPeer(capabilities)
    async with scripted_server(Asking(lambda _: required({"a": QUESTION}))) as url:
        with pytest.raises(McpRefused):
            await pool.call(call_of(url, "modern"), talk("x", peer, False))
    assert not peer.asked


async def test_a_client_that_refuses_ends_the_call_and_the_server_hears_no_more(pool: McpPool) -> None:
    server = Asking(lambda _: required({"a": QUESTION}))
    peer = ScriptedPeer(answers={"elicitation/create": PeerRefused(-32000, "its words")})
    async with scripted_server(server) as url:
        with pytest.raises(McpRefused) as refused:
            await pool.call(call_of(url, "modern"), talk("x", peer, False))
    assert refused.value.code == -32603 and "words" not in refused.value.public and len(server.seen) == 1


async def test_the_time_in_which_a_person_thinks_does_not_count(pool: McpPool) -> None:
    steps, peer = [required({"a": QUESTION}), DONE], ScriptedPeer()
    peer.thinks = 300.0
    async with scripted_server(Asking(lambda number: steps[number - 1])) as url:
        assert text((await pool.call(call_of(url, "modern", seconds=60), talk("x", peer, False))).result) == "done"


@pytest.mark.parametrize(
    ("era", "front", "code", "shown"),
    [
        ("modern", False, -32602, -32002),
        ("modern", True, -32602, -32602),
        ("legacy", True, -32002, -32602),
        ("legacy", False, -32002, -32002),
    ],
)
async def test_a_resource_that_is_not_there_is_so_in_the_clients_era(pool: McpPool, era: str, front: bool, code: int, shown: int) -> None:
    async def answer(request: dict[str, Any]) -> Response:
        if request.get("method") == "initialize":
            result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}
            return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "result": result})
        if "id" not in request:
            return Response(status_code=202)
        return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": "secret"}})

    params = b'{"uri":"note://none","_meta":{}}'
    raw = b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":%s}' % params
    request = McpRequest(1, "note://none", raw, params, front, "resources/read")
    async with scripted_server(answer) as url:
        with pytest.raises(McpRefused) as refused:
            await pool.call(call_of(url, era), request)
    assert (refused.value.code, refused.value.data) == (shown, {"uri": "note://none"}) and "secret" not in refused.value.public
