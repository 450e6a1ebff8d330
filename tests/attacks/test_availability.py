"""One request must not cost the time of everybody's: hostile texts, hostile JSON."""

import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.struct_pb2 import ListValue
from msgspec.structs import replace

from adapters.a2a_client.agent import A2AAgent
from adapters.a2a_client.grpc import GrpcTransport
from adapters.a2a_client.protobuf import to_json, to_protobuf
from adapters.contract import ArtifactPiece, Turn
from adapters.task import Artifact, Message, Part, Role, StreamResponse, Task, TaskState, TaskStatus
from adapters.upstream.egress import Egress
from policies.strict_json import LARGE, BadJson, parse, run_off_loop
from tests.attacks.pumps import Pumps, describe_growth
from tests.fakes.a2a_agents import serving
from tests.fakes.a2a_calls import call_to
from tests.fakes.grpc_door import Canned, Gate, opened
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.loop_guard import loop_guard
from tests.house.regexes import Regex, regexes
from tests.house.source import product


def slow_texts_of(regex: Regex) -> Iterator[str]:
    """What is said of each text that takes the expression more than linear time."""
    method = getattr(re.compile(regex.pattern, regex.flags), regex.method if regex.method in ("match", "fullmatch") else "findall")
    pumps = Pumps(regex)
    found = (describe_growth(method, partial(pumps.pumped_text, way, loop)) for way, loop in pumps.find_loops())
    return (f"{regex.where}: {said}" for said in found if said)


def test_no_text_takes_an_expression_more_than_linear_time() -> None:  # attack AVL-01
    found, _ = regexes(product())
    unique = {(each.pattern, each.flags, each.method): each for each in found}
    assert [said for regex in unique.values() for said in slow_texts_of(regex)] == []


@pytest.mark.parametrize(
    "pattern", [r"\s*tool:\s*(\S{1,128})\s*(\{.*\})?\s*", r"<\s*/?\s*(?:important|system)\b", r"eyJ[\w-]{8,}\.[\w-]+", r"x+@"]
)
def test_a_text_that_takes_more_is_found(pattern: str) -> None:  # attack AVL-01
    assert next(slow_texts_of(Regex("here", pattern, re.DOTALL, "search")))


MB = 1 << 20
BIG: dict[str, Callable[[int], bytes]] = {  # JSON of about so many bytes
    "brackets": lambda size: b"[" * (size // 2) + b"]" * (size // 2),
    "numbers": lambda size: b"[" + b"1," * (size // 2 - 1) + b"1]",
    "escapes": lambda size: b'"' + b"\\n" * (size // 2 - 1) + b'"',
    "empty arrays": lambda size: b"[" + b"[]," * (size // 3 - 1) + b"1]",
    "names": lambda size: b"{" + b",".join(b'"%06d":1' % number for number in range(size // 11)) + b"}",
}


@pytest.mark.parametrize("what", BIG)
def test_large_json_is_read_in_linear_time(what: str) -> None:  # attack AVL-02
    def read(raw: bytes) -> None:
        with suppress(BadJson):
            parse(raw)

    assert describe_growth(read, lambda size: BIG[what](size * 20)) == ""


@pytest.fixture
async def shop(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url) as home:
        yield home


class BigAgent:
    """Answers each request with a task that has `value` as data."""

    def __init__(self, value: bytes) -> None:
        self.value = value

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        asked = json.loads((await receive())["body"])
        part = b'{"artifactId":"a","parts":[{"data":%s}]}' % self.value
        task = b'{"id":"t","contextId":"c","status":{"state":"TASK_STATE_COMPLETED"},"artifacts":[%s]}' % part
        body = b'{"jsonrpc":"2.0","id":%d,"result":{"task":%s}}' % (asked["id"], task)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})


class BigServer:
    """Answers each request with a result that has `value` as structured content, beside an address that is translated."""

    def __init__(self, value: bytes) -> None:
        self.value = value

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        asked = json.loads((await receive())["body"])
        link = b'{"type":"resource_link","uri":"a://b","name":"x"}'
        result = b'{"resultType":"complete","content":[%s],"structuredContent":{"x":%s}}' % (link, self.value)
        body = b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (json.dumps(asked["id"]).encode(), result)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})


async def post(home: House, path: str, body: bytes, **headers: str) -> httpx.Response:
    sent = {"authorization": f"Bearer {home.token('admin')}", "content-type": "application/json", "A2A-Version": "1.0", **headers}
    return await home.http.post(path, content=body, headers=sent)


MESSAGE = b'{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"data":%s}]}}'
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"inventory_check","arguments":{"a":%s}}}'
BODIES = {
    "/agents/sales": b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":' + MESSAGE + b"}",
    "/agents/sales/message:send": MESSAGE,
    "/mcp": CALL,
    "/api/agents": b'{"card":{"name":%s}}',
    "/api/servers": b'{"name":"x","openapi":{"x":%s}}',
    "/access/v1/evaluation": b'{"subject":%s}',
}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_large_body_is_read_beside_the_event_loop(shop: House) -> None:  # attack AVL-02
    await shop.agent(CallbackAgent("sales"))
    await shop.server("inventory", "check")
    for path, frame in BODIES.items():
        for what, make in BIG.items():
            body = frame % make((2 if what == "brackets" else 4) * MB - 1000)
            with loop_guard() as read:
                answer = await post(shop, path, body)
            assert read == [], (path, what)
            assert answer.status_code != 500 and answer.json(), (path, what)
            if what in ("brackets", "empty arrays"):
                assert "error" in answer.json() or answer.status_code in (400, 413, 502), (path, what, answer.text[:300])


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("what", BIG)
async def test_a_large_answer_is_read_beside_the_event_loop(shop: House, what: str) -> None:  # attack AVL-02
    value = BIG[what](4 * MB)
    sales = await shop.stack.enter_async_context(serving(BigAgent(value)))
    await shop.registered("sales", sales)
    inventory = await shop.stack.enter_async_context(serving(BigServer(value)))
    await shop.server("inventory", "check", url=inventory)
    with loop_guard() as read:
        sent = await shop.send(shop.token("admin"), "sales", "hello")
        called = (await shop.call(shop.token("admin"), "/mcp", "inventory_check", {})).json()
    assert read == []
    fits = what == "escapes"
    assert (sent["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED") is fits
    assert ("result" in called) is fits, str(called)[:300]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_large_grpc_messages_are_converted_beside_the_event_loop(version: str, stream: bool) -> None:  # attack AVL-02
    """The gateway's client of an agent calls the gateway's own server, so that both convert a large request and a large answer."""
    numbers = Part(data=[1] * (LARGE // 2))  # two bytes each in JSON
    message = Message("m-1", Role.USER, (numbers,))
    task = Task(id="t", context_id="c", status=TaskStatus(state=TaskState.COMPLETED), artifacts=(Artifact("a", (numbers,)),))
    operations = Canned()
    operations.answers |= {"send": task, "stream": (StreamResponse(task=task),)}
    egress = Egress(["127.0.0.1"])
    transport = GrpcTransport(egress, time.monotonic)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(egress.close)
        stack.push_async_callback(transport.close)
        door = (await stack.enter_async_context(opened(operations, Gate(), 4 * MB))).door
        call = call_to(f"127.0.0.1:{door.port}", binding="GRPC", version=version)
        call = replace(call, headers={"authorization": "Bearer good", "a2a-tenant": "sales"})
        with loop_guard() as converted:
            events = [event async for event in A2AAgent(egress, grpc=lambda: transport).run(Turn(message, None, stream), call)]
    assert converted == []
    ((_, _, params),) = operations.asked
    assert params.message.parts[0].data == numbers.data
    assert [event.artifact.parts[0].data for event in events if isinstance(event, ArtifactPiece)] == [numbers.data]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("what", BIG)
async def test_a_large_card_is_read_beside_the_event_loop(shop: House, what: str) -> None:  # attack AVL-02
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
            await send({"type": "http.response.body", "body": b'{"name":%s}' % BIG[what](MB - 1000)})

    url = await shop.stack.enter_async_context(serving(serve))
    with loop_guard() as read:
        answer = await post(shop, "/api/agents", json.dumps({"url": url}).encode())
    assert read == []
    assert answer.status_code in (400, 422, 502), answer.text


async def test_what_is_read_on_the_event_loop_is_noted() -> None:
    raw = b" " * LARGE + b"[]"
    with loop_guard() as read:
        await run_off_loop(parse, raw)
        assert read == []
        parse(raw)
        to_json(to_protobuf([1] * LARGE, ListValue))
    assert [name for name in read if name in ("parse", "to_protobuf", "to_json")] == ["parse", "to_protobuf", "to_json"]
