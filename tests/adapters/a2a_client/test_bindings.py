"""The A2A adapter over HTTP+JSON and gRPC, in both versions, against agents of the reference implementation on loopback."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import pytest

from adapters.a2a_client.agent import A2AAgent
from adapters.a2a_client.grpc import GrpcTransport
from adapters.a2a_client.wire.transport import ANSWER_LIMIT
from adapters.contract import (
    ArtifactPiece,
    Ask,
    Call,
    CannotReattach,
    Done,
    Event,
    Failed,
    Progress,
    RefLearned,
    Replied,
    Turn,
    UpstreamFault,
    VendorRef,
)
from adapters.task import Message, Role, Task, TaskState, TaskStatus, text_of
from adapters.upstream.egress import Egress
from adapters.upstream.guarded import LATE_TEXT, GuardedAdapter
from tests.fakes.a2a_agents import LARGE, a2a_agent, serving
from tests.fakes.a2a_bindings import Call as Noted
from tests.fakes.a2a_bindings import grpc_agent, rest_agent
from tests.fakes.a2a_calls import call_to, said, turn
from tests.fakes.waiting import SECONDS, until

every_binding = pytest.mark.parametrize(("binding", "version"), [(b, v) for b in ("HTTP+JSON", "GRPC") for v in ("1.0", "0.3")])
watched_or_not = pytest.mark.parametrize("stream", [False, True])


@dataclass
class Meeting:
    """An agent, and the adapter that calls it as its card says."""

    adapter: GuardedAdapter
    url: str
    binding: str
    version: str
    noted: list[Noted]

    def call(self, **more: object) -> Call:
        return call_to(self.url, **{"binding": self.binding, "version": self.version, **more})  # type: ignore[arg-type]  # facts are free

    async def answer(self, text: str, stream: bool = False, ref: VendorRef | None = None, **more: object) -> list[Event]:
        return [event async for event in self.adapter.run(turn(text, ref, stream), self.call(**more))]


@asynccontextmanager
async def meeting(binding: str, version: str, limit: int = ANSWER_LIMIT) -> AsyncIterator[Meeting]:
    egress = Egress(["127.0.0.1"])
    transport = GrpcTransport(egress, time.monotonic, limit=limit)
    agent = {"GRPC": grpc_agent, "HTTP+JSON": rest_agent, "JSONRPC": rpc_agent}[binding](version)
    try:
        async with agent as (url, noted):
            yield Meeting(GuardedAdapter(A2AAgent(egress, grpc=lambda: transport, limit=limit)), url, binding, version, noted)
    finally:
        await transport.close()
        await egress.close()


@asynccontextmanager
async def rpc_agent(version: str) -> AsyncIterator[tuple[str, list[Noted]]]:
    """As those of the other bindings."""
    agent = a2a_agent(version)
    async with serving(agent) as url:
        yield url, agent.requests


def ref_in(events: list[Event]) -> VendorRef:
    return next(event.ref for event in reversed(events) if isinstance(event, RefLearned))


@every_binding
@watched_or_not
async def test_an_answer_comes_whole_with_text_and_data(binding: str, version: str, stream: bool) -> None:
    async with meeting(binding, version) as met:
        events = await met.answer("hello there", stream)
    assert isinstance(events[0], RefLearned)
    assert said(events) == "echo: hello there"
    pieces = [event for event in events if isinstance(event, ArtifactPiece)]
    assert pieces[0].artifact.parts[1].data == {"length": 11}
    assert isinstance(events[-1], Done)
    (where, headers), *more = met.noted
    assert not more
    package = {"1.0": "lf.a2a.v1", "0.3": "a2a.v1"}[version]
    path = f"/message:{'stream' if stream else 'send'}"
    method = "SendStreamingMessage" if stream else "SendMessage"
    assert where == (f"/{package}.A2AService/{method}" if binding == "GRPC" else path if version == "1.0" else f"/v1{path}")
    assert headers["authorization"] == "Bearer hop"
    assert headers.get("a2a-version") == ("1.0" if version == "1.0" else None)


@every_binding
async def test_pieces_of_an_artifact_come_as_they_are_made(binding: str, version: str) -> None:
    async with meeting(binding, version) as met:
        events = await met.answer("pieces", True)
    pieces = [event for event in events if isinstance(event, ArtifactPiece)]
    assert [(text_of(piece.artifact.parts), piece.append, piece.last_chunk) for piece in pieces] == [
        ("one", False, False),
        ("two", True, False),
        ("three", True, True),
    ]
    assert [text_of(event.message.parts) for event in events if isinstance(event, Progress) and event.message] == ["on it"]
    assert isinstance(events[-1], Done)
    assert events[-1].message is not None
    assert text_of(events[-1].message.parts) == "that was it"


@every_binding
@watched_or_not
async def test_a_message_without_a_task_is_a_reply(binding: str, version: str, stream: bool) -> None:
    async with meeting(binding, version) as met:
        events = await met.answer("message", stream)
    assert isinstance(events[-1], Replied)
    assert said(events) == "just a word"


@every_binding
@watched_or_not
async def test_a_question_is_asked_and_its_answer_goes_on_with_the_same_task(binding: str, version: str, stream: bool) -> None:
    async with meeting(binding, version) as met:
        asked = await met.answer("ask", stream)
        resumed = await met.answer("size 5", stream, ref_in(asked))
    assert isinstance(asked[-1], Ask)
    assert said(asked) == "which size?"
    assert isinstance(resumed[-1], Done)
    assert said(resumed) == "you answered: size 5"
    assert not [event for event in resumed if isinstance(event, RefLearned)]


@every_binding
@watched_or_not
@pytest.mark.parametrize(("text", "rejected"), [("fail", False), ("reject", True)])
async def test_a_failure_is_told(binding: str, version: str, stream: bool, text: str, rejected: bool) -> None:
    async with meeting(binding, version) as met:
        events = await met.answer(text, stream)
    assert isinstance(events[-1], Failed)
    assert events[-1].rejected is rejected


@every_binding
@watched_or_not
async def test_an_agent_that_raises_has_failed_and_its_words_stay_inside(binding: str, version: str, stream: bool) -> None:
    async with meeting(binding, version) as met:
        events = await met.answer("raise", stream)
    assert isinstance(events[-1], Failed)
    assert "secret" not in events[-1].reason


@every_binding
@watched_or_not
async def test_an_agent_that_hangs_fails_at_the_deadline_and_others_go_on(binding: str, version: str, stream: bool) -> None:
    async with meeting(binding, version) as met:
        events, others = await asyncio.gather(met.answer("hang", stream, seconds=0.5), met.answer("hello", stream))
    assert isinstance(events[-1], Failed)
    assert events[-1].reason in (LATE_TEXT, "the upstream did not answer in time")
    assert isinstance(others[-1], Done)


@every_binding
async def test_a_late_task_is_canceled_at_the_agent(binding: str, version: str) -> None:
    async with meeting(binding, version) as met:
        events = await met.answer("hang", True, seconds=0.5)
    assert isinstance(events[-1], Failed)
    assert [where.endswith("/CancelTask" if binding == "GRPC" else ":cancel") for where, *_ in met.noted] == [False, True]


@every_binding
async def test_a_working_task_is_canceled_when_the_agent_confirms(binding: str, version: str) -> None:
    async with meeting(binding, version) as met:
        events = met.adapter.run(turn("hang", stream=True), met.call())
        async for event in events:
            if isinstance(event, RefLearned):
                assert await met.adapter.cancel(event.ref, met.call())
                break
        await events.aclose()  # type: ignore[attr-defined]  # every run is an async generator
        assert not await met.adapter.cancel(VendorRef("c", "nobody's"), met.call())
    where = met.noted[1][0]
    assert where.endswith("/CancelTask" if binding == "GRPC" else ":cancel")


@pytest.mark.parametrize("binding", ["HTTP+JSON", "GRPC"])
@watched_or_not
async def test_a_card_that_promises_too_much_is_found_out(binding: str, stream: bool) -> None:
    async with meeting(binding, "0.3") as met:
        for _ in range(2):
            assert said(await met.answer("hello", stream, version="1.0")) == "echo: hello"
    assert ["/v1/" in where or "/a2a.v1." in where for where, _ in met.noted] == [False, True, True]


@pytest.mark.parametrize("binding", ["HTTP+JSON", "GRPC"])
async def test_a_tenant_is_named_as_the_binding_wants_it(binding: str) -> None:
    async with meeting(binding, "1.0") as met:
        events = await met.answer("hello", tenant="acme/north")
    if binding == "GRPC":
        assert isinstance(events[-1], Done)
    else:
        assert met.noted[0][0] == "/acme%2Fnorth/message:send"


async def test_an_agent_that_is_not_there_has_failed() -> None:
    async with meeting("GRPC", "1.0") as met:
        pass
    egress = Egress(["127.0.0.1"])
    transport = GrpcTransport(egress, time.monotonic)
    adapter = GuardedAdapter(A2AAgent(egress, grpc=lambda: transport))
    events = [event async for event in adapter.run(turn("hi"), call_to(met.url, binding="GRPC"))]
    assert [type(event) for event in events] == [Failed]
    assert events[0].reason == "the upstream can't be reached"  # type: ignore[union-attr]  # it is a Failed
    await transport.close()


async def test_a_gateway_without_grpc_says_so() -> None:
    events = [event async for event in GuardedAdapter(A2AAgent(Egress())).run(turn("hi"), call_to("agent.example:443", binding="GRPC"))]
    assert [type(event) for event in events] == [Failed]
    assert "started without gRPC" in events[0].reason  # type: ignore[union-attr]  # it is a Failed


async def test_a_private_target_that_nobody_allowed_is_refused() -> None:
    async with grpc_agent("1.0") as (target, noted):
        egress = Egress()
        transport = GrpcTransport(egress, time.monotonic)
        events = [
            event
            async for event in GuardedAdapter(A2AAgent(egress, grpc=lambda: transport)).run(turn("hi"), call_to(target, binding="GRPC"))
        ]
        await transport.close()
    assert [type(event) for event in events] == [Failed]
    assert not noted


async def cut_after_a_piece(met: Meeting) -> tuple[VendorRef, Task]:
    """A turn whose listener is gone after the agent's first piece: the agent's ids, and the task as far as it was told."""
    told: list[Event] = []
    async with aclosing(met.adapter.run(turn("wait", stream=True), met.call())) as events:  # type: ignore[type-var]  # a generator
        async for event in events:
            told.append(event)
            if isinstance(event, ArtifactPiece):
                break
    status = next(event.message for event in told if isinstance(event, Progress) and event.message)
    artifacts = tuple(event.artifact for event in told if isinstance(event, ArtifactPiece))
    return ref_in(told), Task("ours", "c", TaskStatus(TaskState.WORKING, status), artifacts)


@pytest.mark.parametrize(("binding", "version"), [(b, v) for b in ("HTTP+JSON", "GRPC", "JSONRPC") for v in ("1.0", "0.3")])
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_turn_under_way_goes_on_where_its_listener_was_lost(binding: str, version: str, streaming: bool) -> None:
    async with meeting(binding, version) as met:
        ref, known = await cut_after_a_piece(met)

        async def gone_on() -> list[Event]:
            again = Turn(Message("", Role.USER, ()), ref, stream=True)
            return [event async for event in met.adapter.reattach(again, known, met.call(streaming=streaming))]

        going_on = asyncio.ensure_future(gone_on())
        await until(lambda: len(met.noted) >= 3)  # it has asked for the task, and again or subscribed
        await met.answer("release", streaming=False)
        async with asyncio.timeout(SECONDS):
            events = await going_on
    assert isinstance(events[-1], Done) and events[-1].message is not None and text_of(events[-1].message.parts) == "that was it"
    pieces = [event for event in events if isinstance(event, ArtifactPiece)]
    (piece,) = pieces  # what was told before is not told again, but what was appended is
    assert (piece.append, text_of(piece.artifact.parts)) in ((True, "two"), (False, "one\ntwo"))
    assert not [event for event in events if isinstance(event, Progress)]
    assert any(word in str(met.noted) for word in ("subscribe", "SubscribeToTask", "TaskSubscription")) is streaming


@every_binding
async def test_a_task_that_ended_meanwhile_is_told_as_it_ended(binding: str, version: str) -> None:
    async with meeting(binding, version) as met:
        ended = await met.answer("pieces", True)
        again = Turn(Message("", Role.USER, ()), ref_in(ended), stream=True)
        known = Task("ours", "c", TaskStatus(TaskState.WORKING))
        events = [event async for event in met.adapter.reattach(again, known, met.call())]
    assert said(events) == "one\ntwo\nthree that was it" and isinstance(events[-1], Done)


async def test_a_turn_whose_agent_never_named_its_task_can_not_be_gone_on_with() -> None:
    async with meeting("HTTP+JSON", "1.0") as met:
        with pytest.raises(CannotReattach):
            async for _ in met.adapter.reattach(turn("x"), Task("ours", "c", TaskStatus(TaskState.WORKING)), met.call()):
                pass
        assert met.noted == []


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON", "GRPC"])
@watched_or_not
async def test_one_answer_may_be_as_large_as_a_stream(binding: str, stream: bool) -> None:
    async with meeting(binding, "1.0") as met:
        events = await met.answer("large", stream)
    assert len(said(events)) == LARGE and isinstance(events[-1], Done)


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON", "GRPC"])
@watched_or_not
async def test_an_answer_beyond_the_limit_is_refused(binding: str, stream: bool) -> None:
    async with meeting(binding, "1.0", limit=1 << 20) as met:
        try:
            ending = (await met.answer("large", stream))[-1]
        except UpstreamFault as fault:
            ending = Failed(fault.public, kind=fault.kind)
    assert isinstance(ending, Failed) and "too large" in ending.reason.lower()
