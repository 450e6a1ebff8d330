"""The HTTP+JSON transport: the errors of scripted peers, answers in odd shapes, and what is never told."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from adapters.a2a_client.rest import RestTransport
from adapters.a2a_client.wire.transport import A2APeer, PeerError
from adapters.contract import UpstreamFault
from adapters.task import Message, Part, Role, Task, TaskState
from adapters.upstream.egress import HttpResponse
from registry.cards.reader import choose_interface, read_card
from tests.fakes.a2a_calls import ScriptedEgress, call_to, sends

NEW, OLD = (
    A2APeer("http://a.example/x/", "", is_v03=False, can_stream=True),
    A2APeer("http://a.example/v1", "", is_v03=True, can_stream=True),
)
HELLO = Message("m", Role.USER, (Part(text="hi"),))
TASK: dict[str, Any] = {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}

VERTEX_CARD: dict[str, Any] = {
    "name": "analyst",
    "description": "Tells the weather.",
    "version": "1.0.0",
    "protocolVersion": "0.3.0",
    "preferredTransport": "HTTP+JSON",
    "capabilities": {"streaming": False},
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["text/plain"],
    "skills": [{"id": "weather", "name": "Weather", "description": "Tells the weather.", "tags": ["weather"]}],
    "supportsAuthenticatedExtendedCard": True,
}


class Asked(ScriptedEgress):
    """Keeps what was asked, by method and URL."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(*answers)
        self.asked: list[str] = []

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, **more: Any) -> HttpResponse:
        self.asked.append(f"{method} {url}")
        return await super().request(method, url, headers=headers, body=body, **more)


def transport(status: int, body: Any, kind: str = "application/json") -> RestTransport:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return RestTransport(ScriptedEgress(sends(status, kind, content)))  # type: ignore[arg-type]  # what an Egress does is all that is needed


def error(reason: str, code: int = 400) -> dict[str, Any]:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "a2a-protocol.org"}]
    return {"error": {"code": code, "status": "X", "message": "the agent's own error text", "details": details}}


@pytest.mark.parametrize("peer", [NEW, OLD])
@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (404, error("TASK_NOT_FOUND", 404), -32001),
        (400, error("TASK_NOT_CANCELABLE"), -32002),
        (400, error("UNSUPPORTED_OPERATION"), -32004),
        (400, error("VERSION_NOT_SUPPORTED"), -32009),
        (500, error("INVALID_AGENT_RESPONSE", 500), -32006),
        (400, error("A_REASON_OF_ITS_OWN"), -32602),
        (400, {"error": {"code": -32002, "message": "as JSON-RPC has it"}}, -32002),
        (400, {"code": -32004, "message": "flat"}, -32004),
        (404, b"<html>not here</html>", -32601),
        (405, b"", -32601),
        (415, b"", -32005),
    ],
)
async def test_an_error_is_known_by_its_reason_or_its_status(peer: A2APeer, status: int, body: Any, code: int) -> None:
    with pytest.raises(PeerError) as raised:
        await transport(status, body).send(peer, call_to("x"), HELLO, ())
    assert raised.value.code == code
    assert "own error text" not in raised.value.public


async def test_a_task_that_is_not_there_is_unknown_and_no_reason_to_speak_another_version() -> None:
    for asking in (transport(404, b"").get_task, transport(404, b"").cancel_task):
        with pytest.raises(PeerError) as raised:
            await asking(NEW, call_to("x"), "t")
        assert raised.value.code == -32001


@pytest.mark.parametrize(("status", "says"), [(401, "credential"), (403, "credential"), (502, "HTTP 502"), (302, "HTTP 302")])
async def test_other_answers_are_faults(status: int, says: str) -> None:
    with pytest.raises(UpstreamFault, match=says) as raised:
        await transport(status, b"the agent's own error text").send(NEW, call_to("x"), HELLO, ())
    assert not isinstance(raised.value, PeerError)
    assert "own error text" not in raised.value.public


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a":1,"a":2}', b"{}", b"[" * 10_000, b'{"task":{"id":"t","status":7}}'])
@pytest.mark.parametrize("peer", [NEW, OLD])
async def test_what_is_not_an_answer_is_a_fault(peer: A2APeer, body: bytes) -> None:
    with pytest.raises(UpstreamFault):
        await transport(200, body).send(peer, call_to("x"), HELLO, ())
    with pytest.raises(UpstreamFault):
        await transport(200, body).get_task(peer, call_to("x"), "t")


@pytest.mark.parametrize("peer", [NEW, OLD])
@pytest.mark.parametrize("body", [{"task": TASK}, TASK, {"kind": "task", **TASK, "status": {"state": "working"}}])
async def test_a_task_is_read_by_its_shape(peer: A2APeer, body: Any) -> None:
    sent = await transport(200, body).send(peer, call_to("x"), HELLO, ())
    assert isinstance(sent, Task)
    assert (sent.id, sent.status.state) == ("t", TaskState.WORKING)
    assert await transport(200, body).get_task(peer, call_to("x"), "t") == sent


async def test_a_stream_that_ends_with_an_error_says_so() -> None:
    events = b"data: " + json.dumps({"task": TASK}).encode() + b"\n\ndata: " + json.dumps(error("UNSUPPORTED_OPERATION")).encode() + b"\n\n"
    heard = []
    with pytest.raises(PeerError) as raised:
        async for batch in transport(200, events, "text/event-stream").stream(NEW, call_to("x"), HELLO, ()):
            for event in batch:
                heard.append(event)
    assert len(heard) == 1
    assert raised.value.code == -32004


async def test_a_stream_may_be_answered_whole() -> None:
    heard = [event async for event in transport(200, {"task": TASK}).stream(NEW, call_to("x"), HELLO, ())]
    assert len(heard) == 1


@pytest.mark.parametrize(("peer", "url"), [(NEW, "http://a.example/x/tasks/a%2Fb%3Fc"), (OLD, "http://a.example/v1/tasks/a%2Fb%3Fc")])
async def test_a_task_id_is_one_step_of_the_path(peer: A2APeer, url: str) -> None:
    egress = Asked(sends(200, "application/json", json.dumps({**TASK, "id": "a/b?c"}).encode()))
    await RestTransport(egress).get_task(peer, call_to("x"), "a/b?c")  # type: ignore[arg-type]  # what an Egress does is all that is needed
    assert egress.asked == [f"GET {url}"]


async def test_an_agent_of_vertex_is_asked_and_read_as_google_documents_it() -> None:
    url = "https://us-central1-aiplatform.googleapis.com/v1beta1/projects/p/locations/us-central1/reasoningEngines/7/a2a"
    card = read_card({**VERTEX_CARD, "url": url})
    interface = choose_interface(card)
    assert (interface.binding, interface.version) == ("HTTP+JSON", "0.3")
    task = {**TASK, "status": {"state": "TASK_STATE_COMPLETED"}, "artifacts": [{"artifactId": "a", "parts": [{"text": "Rain"}]}]}
    egress = Asked(sends(200, "application/json", json.dumps({"task": task}).encode()))
    peer = A2APeer(interface.url, "", is_v03=True, can_stream=True)
    told = await RestTransport(egress).send(peer, call_to("x"), HELLO, ())  # type: ignore[arg-type]  # what an Egress does is all that is needed
    assert egress.asked == [f"POST {url}/v1/message:send"]
    assert egress.requests[0]["message"] == {"messageId": "m", "role": "ROLE_USER", "content": [{"text": "hi"}]}
    assert isinstance(told, Task) and told.status.state is TaskState.COMPLETED
    assert [part.text for part in told.artifacts[0].parts] == ["Rain"]
