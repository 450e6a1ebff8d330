"""The A2A adapter against agents of the reference implementation over loopback, in both versions, streaming and not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send

from adapters.a2a_client.agent import A2AAgent
from adapters.contract import ArtifactPiece, Ask, Done, Event, Failed, Progress, RefLearned, Replied, VendorRef
from adapters.task import text_of
from adapters.upstream.egress import Egress
from adapters.upstream.guarded import LATE_TEXT, GuardedAdapter
from tests.fakes.a2a_agents import Recorded, a2a_agent, serving
from tests.fakes.a2a_calls import call_to, said, turn

both_versions = pytest.mark.parametrize("version", ["1.0", "0.3"])
watched_or_not = pytest.mark.parametrize("stream", [False, True])


@asynccontextmanager
async def meeting(version: str) -> AsyncIterator[tuple[GuardedAdapter, Recorded, str]]:
    """The adapter, the agent and its URL."""
    app, egress = a2a_agent(version), Egress(["127.0.0.1"])
    try:
        async with serving(app) as url:
            yield GuardedAdapter(A2AAgent(egress)), app, url
    finally:
        await egress.close()


async def answer(adapter: GuardedAdapter, url: str, version: str, text: str, stream: bool, ref: VendorRef | None = None) -> list[Event]:
    return [event async for event in adapter.run(turn(text, ref, stream), call_to(url, version=version))]


def ref_in(events: list[Event]) -> VendorRef:
    return next(event.ref for event in reversed(events) if isinstance(event, RefLearned))


@both_versions
@watched_or_not
async def test_an_answer_comes_whole_with_text_and_data(version: str, stream: bool) -> None:
    async with meeting(version) as (adapter, app, url):
        events = await answer(adapter, url, version, "hello there", stream)
    assert isinstance(events[0], RefLearned)
    assert said(events) == "echo: hello there"
    pieces = [event for event in events if isinstance(event, ArtifactPiece)]
    assert pieces[0].artifact.parts[1].data == {"length": 11}
    assert isinstance(events[-1], Done)
    old, new = ("message/stream", "SendStreamingMessage") if stream else ("message/send", "SendMessage")
    assert app.methods == [old if version == "0.3" else new]
    assert app.requests[0]["params"]["message"]["messageId"] == "m-1"
    assert app.headers[0]["authorization"] == "Bearer hop"


@both_versions
async def test_pieces_of_an_artifact_come_as_they_are_made(version: str) -> None:
    async with meeting(version) as (adapter, _, url):
        events = await answer(adapter, url, version, "pieces", True)
    pieces = [event for event in events if isinstance(event, ArtifactPiece)]
    assert [(text_of(piece.artifact.parts), piece.append, piece.last_chunk) for piece in pieces] == [
        ("one", False, False),
        ("two", True, False),
        ("three", True, True),
    ]
    said_meanwhile = [text_of(event.message.parts) for event in events if isinstance(event, Progress) and event.message]
    assert said_meanwhile == ["on it"]
    assert isinstance(events[-1], Done)
    assert events[-1].message is not None
    assert text_of(events[-1].message.parts) == "that was it"


@both_versions
@watched_or_not
async def test_a_message_without_a_task_is_a_reply(version: str, stream: bool) -> None:
    async with meeting(version) as (adapter, _, url):
        events = await answer(adapter, url, version, "message", stream)
    assert isinstance(events[-1], Replied)
    assert said(events) == "just a word"


@both_versions
@watched_or_not
async def test_a_question_is_asked_and_its_answer_goes_on_with_the_same_task(version: str, stream: bool) -> None:
    async with meeting(version) as (adapter, _, url):
        asked = await answer(adapter, url, version, "ask", stream)
        ref = ref_in(asked)
        resumed = await answer(adapter, url, version, "size 5", stream, ref)
    assert isinstance(asked[-1], Ask)
    assert (said(asked), asked[-1].auth) == ("which size?", False)
    assert isinstance(resumed[-1], Done)
    assert said(resumed) == "you answered: size 5"
    assert not [event for event in resumed if isinstance(event, RefLearned)]


@both_versions
async def test_a_conversation_goes_on_in_its_context_with_a_new_task(version: str) -> None:
    async with meeting(version) as (adapter, _, url):
        first = ref_in(await answer(adapter, url, version, "hello", False))
        second = ref_in(await answer(adapter, url, version, "hello", False, VendorRef(first.context_id)))
    assert second.context_id == first.context_id
    assert second.task_id != first.task_id


@both_versions
@watched_or_not
async def test_an_authorization_is_asked_for(version: str, stream: bool) -> None:
    async with meeting(version) as (adapter, _, url):
        events = await answer(adapter, url, version, "auth", stream)
    assert isinstance(events[-1], Ask)
    assert events[-1].auth
    assert "sign in" in said(events)


@both_versions
@watched_or_not
@pytest.mark.parametrize(("text", "rejected", "reason"), [("fail", False, "failed"), ("reject", True, "rejected")])
async def test_a_failure_is_told(version: str, stream: bool, text: str, rejected: bool, reason: str) -> None:
    async with meeting(version) as (adapter, _, url):
        events = await answer(adapter, url, version, text, stream)
    assert isinstance(events[-1], Failed)
    assert events[-1].rejected is rejected
    assert reason in events[-1].reason
    assert events[-1].message is not None


@both_versions
@watched_or_not
async def test_an_agent_that_raises_has_failed_and_its_words_stay_inside(version: str, stream: bool) -> None:
    async with meeting(version) as (adapter, _, url):
        events = await answer(adapter, url, version, "raise", stream)
    assert isinstance(events[-1], Failed)
    assert "secret" not in events[-1].reason


@both_versions
@watched_or_not
async def test_an_agent_that_hangs_fails_at_the_deadline_and_others_go_on(version: str, stream: bool) -> None:
    async with meeting(version) as (adapter, _, url):
        hanging = call_to(url, seconds=0.5, version=version)
        events, others = await asyncio.gather(_all(adapter, hanging, stream), answer(adapter, url, version, "hello", stream))
    assert isinstance(events[-1], Failed)
    assert events[-1].reason in (LATE_TEXT, "the upstream did not answer in time")
    assert isinstance(others[-1], Done)


@both_versions
async def test_a_late_task_is_canceled_at_the_agent_under_its_own_id(version: str) -> None:
    async with meeting(version) as (adapter, app, url):
        events = await _all(adapter, call_to(url, seconds=0.5, version=version), True)
    assert isinstance(events[-1], Failed) and events[-1].kind == "AGENT_LATE"
    assert app.methods[1:] == ["CancelTask" if version == "1.0" else "tasks/cancel"]
    assert app.requests[-1]["params"]["id"] == ref_in(events).task_id


async def _all(adapter: GuardedAdapter, call: object, stream: bool) -> list[Event]:
    return [event async for event in adapter.run(turn("hang", None, stream), call)]  # type: ignore[arg-type]  # gather widens it


@both_versions
async def test_a_working_task_is_canceled_when_the_agent_confirms(version: str) -> None:
    async with meeting(version) as (adapter, app, url):
        call = call_to(url, version=version)
        events = adapter.run(turn("hang", stream=True), call)
        async for event in events:
            if isinstance(event, RefLearned):
                assert await adapter.cancel(event.ref, call)
                break
        await events.aclose()  # type: ignore[attr-defined]  # every run is an async generator
        assert not await adapter.cancel(VendorRef("c", "nobody's"), call)
    assert app.methods[1] == ("CancelTask" if version == "1.0" else "tasks/cancel")


@watched_or_not
async def test_a_card_that_promises_too_much_is_found_out(stream: bool) -> None:
    async with meeting("0.3") as (adapter, app, url):
        for _ in range(2):
            assert said(await answer(adapter, url, "1.0", "hello", stream)) == "echo: hello"
    assert [method.lower().startswith("send") for method in app.methods] == [True, False, False]


HALF = (
    b'data: {"jsonrpc":"2.0","id":1,"result":{"task":{"id":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}}}\n\ndata: {"json'
)


class Dying:
    """Streams an event and a half and cuts the connection; asked for the task, it answers with `then`, or dies again."""

    def __init__(self, then: bytes) -> None:
        self._then = then

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        streams = b"SendStreamingMessage" in (await receive())["body"]
        if not streams and not self._then:
            raise RuntimeError("dead")
        kind, body = (b"text/event-stream", HALF) if streams else (b"application/json", self._then)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": body, "more_body": streams})
        if streams:
            raise RuntimeError("dead")


@pytest.mark.parametrize(
    ("then", "ending"),
    [
        (b"", Failed),
        (b'{"jsonrpc":"2.0","id":2,"result":{"id":"t","contextId":"c","status":{"state":"TASK_STATE_COMPLETED"}}}', Done),
        (b'{"jsonrpc":"2.0","id":2,"error":{"code":-32001,"message":"who?"}}', Failed),
    ],
)
async def test_an_agent_that_dies_in_mid_stream_is_asked_what_became_of_the_task(then: bytes, ending: type[Event]) -> None:
    egress = Egress(["127.0.0.1"])
    try:
        async with serving(Dying(then)) as url:
            events = [event async for event in GuardedAdapter(A2AAgent(egress)).run(turn("hi", stream=True), call_to(url))]
    finally:
        await egress.close()
    assert events[0] == RefLearned(VendorRef("c", "t"))
    assert isinstance(events[-1], ending)


async def test_an_agent_that_is_not_there_has_failed() -> None:
    async with serving(Dying(b"")) as url:
        pass
    egress = Egress(["127.0.0.1"])
    events = [event async for event in GuardedAdapter(A2AAgent(egress)).run(turn("hi"), call_to(url))]
    await egress.close()
    assert [type(event) for event in events] == [Failed]


async def test_a_private_target_that_nobody_allowed_is_refused() -> None:
    egress = Egress()
    events = [event async for event in GuardedAdapter(A2AAgent(egress)).run(turn("hi"), call_to("http://127.0.0.1:8000/"))]
    await egress.close()
    assert [type(event) for event in events] == [Failed]
