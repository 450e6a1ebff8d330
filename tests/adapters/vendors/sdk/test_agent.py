"""What the runner does for every vendor: who the person is, whose the session, what is fetched, and how long anything may take."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, ClassVar

import pytest
from msgspec.structs import replace

from adapters.contract import (
    AGENT_LATE,
    ArtifactPiece,
    Ask,
    Canceled,
    CannotCancel,
    Done,
    Event,
    Failed,
    InvalidAnswer,
    Progress,
    Prompt,
    RefLearned,
    Turn,
    UpstreamFault,
    VendorRef,
    token_usage_metadata,
)
from adapters.task import Artifact, Message, Part, Role
from adapters.upstream.egress import Egress
from adapters.upstream.guarded import GuardedAdapter
from adapters.vendors.langchain.langgraph import LangGraphOptions
from adapters.vendors.sdk.agent import (
    BAD_OPTIONS_TEXT,
    CANCEL_UNKNOWN_TEXT,
    AgentFacts,
    BadOptions,
    CancelOutcome,
    Features,
    Vendor,
    VendorAgent,
    VendorOptions,
    parse_options,
    read_events,
    user_id,
)
from adapters.vendors.sdk.connection import NOT_FETCHED_KEY, Request, VendorConnection, VendorEndpoint, quote_segment
from adapters.vendors.sdk.frames import End, EventMessage, Frame, Head, JsonBody, NdjsonLine, SseFrame, decoder_for
from policies.delegation.chain import Principal
from tests.adapters.replay import build_message, call_of, gathered, in_odd_chunks, in_one_chunk, vendor_of
from tests.fakes.upstream import Upstream, answer

ALICE = Principal("default", "https://idp.example", "alice@corp.example")


class Plain:
    """A vendor whose answers are events of one text each; `ends` ends the turn."""

    kind: ClassVar[str] = "plain"
    features: ClassVar[Features] = Features()
    options: ClassVar[type[VendorOptions]] = VendorOptions
    outcome = CancelOutcome.CANCELED

    async def describe(self, line: VendorConnection[VendorOptions]) -> AgentFacts:
        return AgentFacts("plain", "Plain.")

    async def run(self, turn: Turn, line: VendorConnection[VendorOptions]) -> AsyncIterator[Event]:
        ref = turn.ref or VendorRef()
        yield RefLearned(VendorRef(ref.context_id or f"their-{turn.session}", "run-1"))
        async with aclosing(read_events(_Texts(), line.stream_frames(Request("POST", "/run", {"user": line.user})))) as events:
            async for event in events:
                yield event

    async def cancel(self, ref: VendorRef, line: VendorConnection[VendorOptions]) -> CancelOutcome:
        return self.outcome


class _Texts:
    def read(self, frame: Frame) -> Iterator[Event]:
        if isinstance(frame, SseFrame) and frame.data == "end":
            yield Done()
        elif isinstance(frame, SseFrame) and frame.event == "file":
            yield ArtifactPiece(Artifact("file", (Part(url=frame.data, media_type="text/plain"),)))
        elif isinstance(frame, SseFrame) and frame.event in ("failed", "stopped"):
            said = Message(
                "m",
                Role.AGENT,
                (Part(text=frame.data),),
                metadata={**token_usage_metadata("m-1"), "urn:interlock:a2a:error": {"reason": "KILLED"}},
            )
            yield Failed("It failed", said, detail="code 7") if frame.event == "failed" else Canceled(said)
        elif isinstance(frame, SseFrame) and frame.event == "failed quietly":
            yield Failed(
                "It failed", metadata={**token_usage_metadata("m-1"), "place": frame.data, "urn:interlock:a2a:error": {"reason": "KILLED"}}
            )
        elif isinstance(frame, SseFrame) and frame.event == "login":
            yield Ask(prompts=(Prompt("p-1", "Log in", url=frame.data), Prompt("p-2")))


_: type[Vendor] = Plain
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    made = Egress(["127.0.0.1"])
    yield made
    await made.close()


def agent(egress: Egress) -> GuardedAdapter:
    return GuardedAdapter(VendorAgent(Plain(), egress))


def asked(session: str = "s-1") -> Turn:
    return Turn(build_message({"text": "hello"}), session=session)


async def test_a_dripping_answer_ends_with_the_deadline(egress: Egress) -> None:
    async def drips(head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(HEAD)
        while not writer.is_closing():
            writer.write(b": still here\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with Upstream(drips) as upstream:
        events = await gathered(agent(egress).run(asked(), call_of("plain", {}, upstream.url, seconds=0.5)))
    assert isinstance(events[-1], Failed) and events[-1].kind == AGENT_LATE


async def test_a_connection_that_breaks_is_a_failure_and_so_is_an_event_without_end(egress: Egress) -> None:
    async def breaks(head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:")
        writer.close()

    async def swells(head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(HEAD + b"data: ")
        for _ in range(9 << 4):
            writer.write(b"x" * (1 << 16))
        writer.close()

    for act in (breaks, swells):
        async with Upstream(act) as upstream:
            events = await gathered(agent(egress).run(asked(), call_of("plain", {}, upstream.url)))
        assert isinstance(events[-1], Failed) and events[-1].kind == InvalidAnswer.kind


async def test_an_output_url_is_fetched_with_the_credential_at_its_own_origin_only(egress: Egress) -> None:
    async def stores(head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(answer(b"report", "200 OK", "Content-Type: text/plain"))
        writer.close()

    places: list[str] = []

    async def names(head: bytes, _reader: Any, writer: Any) -> None:
        if head.startswith(b"GET"):
            writer.write(answer(b"at home", "200 OK", "Content-Type: text/plain"))
            return
        writer.write(HEAD + "".join(f"event: file\ndata: {place}\n\n" for place in places).encode() + b"data: end\n\n")
        writer.close()

    async with Upstream(stores) as store, Upstream(names) as upstream:
        places += ["/files/1", f"{store.url}/2", "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd"]
        events = await gathered(agent(egress).run(asked(), call_of("plain", {}, upstream.url)))
    parts = [event.artifact.parts[0] for event in events if isinstance(event, ArtifactPiece)]
    assert [base64.b64decode(part.raw) for part in parts[:2] if isinstance(part.raw, str)] == [b"at home", b"report"]
    assert b"operators-secret-key" in upstream.requests[-1] and b"operators-secret-key" not in store.requests[0]
    for part in parts[2:]:  # attack: an agent names what only the gateway can reach
        assert not isinstance(part.raw, str) and isinstance(part.metadata, dict) and part.metadata[NOT_FETCHED_KEY]


@pytest.mark.parametrize(
    "place", ["https://login.example/x", "javascript:alert(1)", "data:text/html,x", "//login.example", "file:///etc/passwd"]
)
async def test_people_are_sent_to_pages_alone(egress: Egress, place: str) -> None:
    async def asks(head: bytes, reader: Any, writer: Any) -> None:
        writer.write(HEAD + f"event: login\ndata: {place}\n\n".encode())
        writer.close()

    async with Upstream(asks) as upstream:
        events = await gathered(
            VendorAgent(Plain(), egress).run(Turn(build_message({"text": "hi"}), session="s"), call_of("plain", {}, upstream.url))
        )
    ending = events[-1]
    assert isinstance(ending, Ask)
    assert [(prompt.id, prompt.url) for prompt in ending.prompts] == [("p-1", place if place.startswith("https:") else ""), ("p-2", "")]


async def test_a_turn_that_follows_closely_uses_the_session_of_the_previous_turn(egress: Egress) -> None:
    async def ends(head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(HEAD + b"data: end\n\n")
        writer.close()

    async with Upstream(ends) as upstream:
        one, call = agent(egress), call_of("plain", {}, upstream.url)
        await gathered(one.run(replace(asked(), ref=VendorRef("opened")), call))
        for session, theirs in (("s-1", "opened"), ("s-2", "their-s-2")):
            events = await gathered(one.run(asked(session), call))
            assert isinstance(events[0], RefLearned) and events[0].ref.context_id == theirs


async def test_a_turn_that_waited_goes_on_with_what_the_one_before_it_kept(egress: Egress) -> None:
    going, before = asyncio.Event(), []

    class Keeping(Plain):
        async def run(self, turn: Turn, line: VendorConnection[VendorOptions]) -> AsyncIterator[Event]:
            ref = turn.ref or VendorRef()
            before.append(ref.kept)
            yield RefLearned(VendorRef("theirs", f"run-{len(before)}", kept={"runs": len(before)}))
            await going.wait()
            yield Done()

    one, call = VendorAgent(Keeping(), egress), call_of("plain", {})
    told = replace(asked(), ref=VendorRef("theirs", kept={"runs": 0}))
    turns = [asyncio.create_task(gathered(one.run(told, call))) for _ in range(2)]
    await asyncio.sleep(0)  # both have been at the gate now
    going.set()
    await asyncio.gather(*turns)
    assert before == [{"runs": 0}, {"runs": 1}]
    await gathered(one.run(told, call))
    assert before[2] == {"runs": 0}  # nobody was waited for: what the database has is newer


@pytest.mark.parametrize("last", [b"", b"data: end\n\n"], ids=["breaks off", "ends as if all was said"])
async def test_a_run_that_ends_because_it_was_canceled_is_canceled(egress: Egress, last: bytes) -> None:
    asking, going = asyncio.Event(), asyncio.Event()

    async def until_canceled(head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(HEAD)
        await writer.drain()
        asking.set()
        await going.wait()
        writer.write(last)
        writer.close()

    class Slow(Plain):
        async def cancel(self, ref: VendorRef, line: VendorConnection[VendorOptions]) -> CancelOutcome:
            going.set()
            await ended.wait()
            return CancelOutcome.CANCELED

    ended = asyncio.Event()
    async with Upstream(until_canceled) as upstream:
        one, call = GuardedAdapter(VendorAgent(Slow(), egress)), call_of("plain", {}, upstream.url)
        running = asyncio.create_task(gathered(one.run(asked(), call)))
        async with asyncio.timeout(60):
            await asking.wait()
            canceling = asyncio.create_task(one.cancel(VendorRef("c", "run-1"), call))
            await going.wait()
            ended.set()
            assert await canceling
            events = await running
    assert events[-1] == Canceled()


# attack LOG-02
@pytest.mark.parametrize(("words", "shown"), [("out of stock", True), ("/srv/desk/tools.py is missing", False)])
async def test_what_an_agent_says_of_its_failure_is_sieved_for_every_adapter(egress: Egress, words: str, shown: bool) -> None:
    ends, told = list[Event](), ["failed", "stopped"]

    async def tells(head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(HEAD + f"event: {told[len(ends)]}\ndata: {words}\n\n".encode())
        writer.close()

    async with Upstream(tells) as upstream:
        while len(ends) < len(told):
            ends.append((await gathered(agent(egress).run(asked(), call_of("plain", {}, upstream.url))))[-1])
    failed, stopped = ends
    assert isinstance(failed, Failed) and isinstance(stopped, Canceled) and failed.message == stopped.message
    if shown:
        assert (
            failed.message is not None
            and failed.message.parts == (Part(text=words),)
            and failed.message.metadata == token_usage_metadata("m-1")
        )
        assert (failed.reason, failed.detail) == ("It failed", "code 7")
    else:
        assert failed.message is None and failed.reason == "It failed; the agent's own error text is only in the log"
        assert failed.detail.startswith("code 7 ") and words in failed.detail


async def test_the_metadata_of_a_failure_is_sieved_for_every_adapter(egress: Egress) -> None:  # attack LOG-02
    async def tells(head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(HEAD + b"event: failed quietly\ndata: /srv/desk/tools.py\n\n")
        writer.close()

    async with Upstream(tells) as upstream:
        *_, failed = await gathered(agent(egress).run(asked(), call_of("plain", {}, upstream.url)))
    assert isinstance(failed, Failed) and (failed.reason, failed.metadata) == ("It failed", token_usage_metadata("m-1"))
    assert "/srv/desk/tools.py" in failed.detail


async def test_no_adapter_hands_on_a_stack_trace_while_its_agent_works(egress: Egress) -> None:  # attack LOG-02
    words = "no luck\n\tat com.acme.Shop.place(Shop.java:12)"

    class Traced(Plain):
        async def run(self, turn: Turn, line: VendorConnection[VendorOptions]) -> AsyncIterator[Event]:
            for text in ("busy", words):
                yield Progress(Message("m", Role.AGENT, (Part(text=text),)))
            yield Done()

    events = await gathered(VendorAgent(Traced(), egress).run(asked(), call_of("plain", {})))
    assert events[:-1] == [Progress(Message("m", Role.AGENT, (Part(text="busy"),))), Progress(detail=words)]
    assert isinstance(events[-1], Done)


@pytest.mark.parametrize(("outcome", "confirmed"), [(CancelOutcome.CANCELED, True), (CancelOutcome.TOO_LATE, False)])
async def test_a_cancellation_is_what_really_happened(egress: Egress, outcome: CancelOutcome, confirmed: bool) -> None:
    vendor = Plain()
    vendor.outcome = outcome
    assert await GuardedAdapter(VendorAgent(vendor, egress)).cancel(VendorRef("c", "r"), call_of("plain", {})) is confirmed


async def test_a_cancellation_that_nobody_knows_of_is_none(egress: Egress) -> None:
    vendor = Plain()
    vendor.outcome = CancelOutcome.UNKNOWN
    with pytest.raises(UpstreamFault, match=CANCEL_UNKNOWN_TEXT):
        await GuardedAdapter(VendorAgent(vendor, egress)).cancel(VendorRef("c", "r"), call_of("plain", {}))


@pytest.mark.parametrize("outcome", [CancelOutcome.TOO_LATE, CancelOutcome.UNKNOWN, CancelOutcome.UNSUPPORTED])
async def test_a_task_that_waits_can_be_canceled_whatever_became_of_its_last_run(egress: Egress, outcome: CancelOutcome) -> None:
    vendor = Plain()
    vendor.outcome = outcome
    with pytest.raises(CannotCancel):
        await GuardedAdapter(VendorAgent(vendor, egress)).cancel(VendorRef("c", "r", prompts=(Prompt("i-1"),)), call_of("plain", {}))


async def test_options_that_an_adapter_takes_no_more_are_a_failure_that_says_so(egress: Egress) -> None:
    events = await gathered(agent(egress).run(asked(), call_of("plain", {"gone": 1})))
    assert events == [Failed(BAD_OPTIONS_TEXT, detail="upstream.gone is not an option of this kind of agent", kind="UPSTREAM")]


def test_options_are_read_as_json_has_them() -> None:
    options = parse_options(vendor_of("langgraph"), {"assistant": "echo", "nodes": ["work"], "timeout": 5, "headers": {}})
    assert options == LangGraphOptions(assistant="echo", nodes=("work",))
    with pytest.raises(BadOptions, match=r"upstream\.assistant"):
        parse_options(vendor_of("langgraph"), {"assistant": 7})


def test_a_person_is_the_same_to_a_vendor_at_each_call_and_nobody_else() -> None:
    hidden = VendorOptions()
    assert user_id(ALICE, hidden) == user_id(Principal("default", "https://idp.example", "alice@corp.example", ("sales",)), hidden)
    others = [Principal("acme", ALICE.issuer, ALICE.subject), Principal("default", "https://other.example", ALICE.subject)]
    assert len({user_id(each, hidden) for each in (ALICE, *others)}) == 3
    assert "alice" not in user_id(ALICE, hidden)
    assert user_id(ALICE, VendorOptions(user="subject")) == "alice@corp.example"


def test_an_id_never_leads_to_another_place() -> None:
    assert [quote_segment(text) for text in ("..", ".", "a/b", "a?b#c", "%2F")] == ["%2E%2E", "%2E", "a%2Fb", "a%3Fb%23c", "%252F"]


@pytest.mark.parametrize("pieces", [in_one_chunk, in_odd_chunks], ids=["whole", "pieces"])
@pytest.mark.parametrize(
    ("kind", "body", "frames"),
    [
        ("application/json; charset=utf-8", b'{"a": 1}', [JsonBody({"a": 1})]),
        ("application/x-ndjson", b'{"a": 1}\n\n{"b": 2}', [NdjsonLine({"a": 1}), NdjsonLine({"b": 2})]),
        ("text/event-stream", b"event: x\r\nid: 7\r\ndata: 1\r\n\r\n", [SseFrame("x", "1", "7")]),
    ],
)
def test_bytes_become_frames_however_they_are_cut(kind: str, body: bytes, frames: list[Frame], pieces: Any) -> None:
    decoder = decoder_for(kind)
    found = [frame for piece in pieces(body) for frame in decoder.feed(piece)]
    *rest, end = decoder.finish()
    assert found + rest == frames
    assert end.is_clean  # type: ignore[union-attr]  # the last frame is an End
    assert not isinstance(frames[0], Head | EventMessage)


@pytest.mark.parametrize(("kind", "body"), [("text/event-stream", b"data: 1\n\ndata: 2"), ("application/x-ndjson", b'{"a": 1}\n{"b"')])
def test_a_body_that_ends_within_a_piece_does_not_end_cleanly(kind: str, body: bytes) -> None:
    decoder = decoder_for(kind)
    assert len(decoder.feed(body)) == 1
    assert decoder.finish() == [End(False)]


@pytest.mark.parametrize(("before", "undone"), [([], True), (["GET"], True), (["POST"], False)], ids=["alone", "a look", "a deed"])
async def test_a_refused_request_says_whether_the_agent_did_anything_in_this_turn(egress: Egress, before: list[str], undone: bool) -> None:
    async def refuses(head: bytes, _reader: Any, writer: Any) -> None:
        kind = "Content-Type: application/json"
        writer.write(answer(b"{}", "422 No", kind) if b"/answer" in head else answer(b"{}", "200 OK", kind))

    async with Upstream(refuses) as upstream:
        place = VendorEndpoint(upstream.url, {}, {}, asyncio.get_running_loop().time() + 60)
        for ask in (lambda line, request: line.request(request), lambda line, request: anext(line.stream_frames(request))):
            line = VendorConnection(egress, place, VendorOptions())
            for method in before:
                await line.request(Request(method, "/"))
            with pytest.raises(UpstreamFault) as refused:
                await ask(line, Request("POST", "/answer", {}))
            assert (refused.value.had_no_effect, refused.value.is_callers_mistake) == (undone, True)
    fresh = Egress(["127.0.0.1"])  # without a connection that it may use again
    with pytest.raises(UpstreamFault) as unreached:
        await VendorConnection(fresh, place, VendorOptions()).request(Request("POST", "/answer", {}))
    await fresh.close()
    assert unreached.value.had_no_effect
