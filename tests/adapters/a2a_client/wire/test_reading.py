"""What an agent's answers come to, for recorded agents and for lying ones."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from adapters.a2a_client.wire import rpc
from adapters.a2a_client.wire.reading import A2ATurnReader
from adapters.a2a_client.wire.tolerant import UnknownState
from adapters.contract import (
    ENDINGS,
    ArtifactPiece,
    Ask,
    Canceled,
    Done,
    Event,
    Failed,
    Progress,
    RefLearned,
    Replied,
    UpstreamFault,
    VendorRef,
)
from adapters.task import (
    Artifact,
    Message,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
    text_of,
)
from adapters.upstream.sse import SseReader
from tests.fakes.recordings import FOLDER, every_exchange
from tests.strategies import cuts, peer_events

HYBRID = (FOLDER / "langgraph" / "native_a2a_v1_stream.txt").read_bytes()
STREAMS = [(name, each["response"]["stream_raw"].encode()) for name, each in every_exchange() if each["response"].get("stream_raw")]
ENDINGS_OF = {"langflow_a2a03/failure:1": Failed, "langflow_a2a03/question:2": Ask}  # all others complete
TEXTS = {
    "adk/native_a2a:1": "echo: hello stream",
    "crewai_a2a03/stream:0": "echo: hello there",
    "langflow_a2a03/failure:1": "",
    "langflow_a2a03/question:2": "",
    "langflow_a2a03/stream:0": "hello there",
    "langgraph/native_a2a:2": "echo: hello a2a",
    "maf_a2a/pieces:2": "echo 1: hello there ",
    "maf_a2a/whole:2": "",  # it says its answer while it works, and nothing when it completes
    "pydantic_fasta2a/stream:0": "echo: hello there ",
    "strands_a2a03/stream:0": "echo: hello there ",
}


def read(chunks: list[bytes]) -> list[Event]:
    """All events of a stream, up to its ending."""
    reading, sse, events = A2ATurnReader(None), SseReader(), []
    for chunk in chunks:
        for sent in sse.feed(chunk):
            request_id = int(json.loads(sent.data)["id"])
            if not reading.has_ended:
                events += reading.events(rpc.read_event(sent.data, request_id))
    return events


def folded(events: list[Event]) -> str:
    """The text of all artifacts, their pieces joined as they ask for it."""
    texts: dict[str, str] = {}
    for event in events:
        if isinstance(event, ArtifactPiece):
            before = texts.get(event.artifact.artifact_id, "") if event.append else ""
            texts[event.artifact.artifact_id] = before + "".join(str(part.text) for part in event.artifact.parts)
    return "".join(texts.values())


def ended(*answers: Any, ref: VendorRef | None = None) -> list[Event]:
    reading = A2ATurnReader(ref)
    return [event for answer in answers for event in reading.events(answer)]


def message(text: str, **ids: str) -> Message:
    return Message(f"m-{text}", Role.AGENT, (Part(text=text),), **ids)


def task(state: TaskState, text: str = "", **members: Any) -> Task:
    return Task("t", "c", TaskStatus(state, message(text, context_id="c", task_id="t") if text else UNSET), **members)


@pytest.mark.parametrize(("name", "body"), STREAMS, ids=[name for name, _ in STREAMS])
def test_recorded_streams_come_to_one_answer(name: str, body: bytes) -> None:
    events = read([body])
    assert isinstance(events[0], RefLearned)
    assert isinstance(events[-1], ENDINGS_OF.get(name, Done))
    assert sum(type(event) in ENDINGS for event in events) == 1
    assert folded(events) == TEXTS[name]


@given(st.data(), st.sampled_from([HYBRID, *(body for _, body in STREAMS)]))
def test_a_stream_is_the_same_however_it_is_cut(data: st.DataObject, body: bytes) -> None:
    assert read(data.draw(cuts(body))) == read([body])


@given(st.data(), st.sampled_from([HYBRID, *(body for _, body in STREAMS)]))
def test_a_stream_that_breaks_off_has_no_ending(data: st.DataObject, body: bytes) -> None:
    last = body.rstrip().rfind(b"data:")  # where the ending's event begins
    events = read([body[: data.draw(st.integers(0, last))]])
    assert not [event for event in events if type(event) in ENDINGS]


def test_the_hybrid_of_1_0_words_and_flat_updates_is_read() -> None:
    events = read([HYBRID])
    pieces = [event for event in events if isinstance(event, ArtifactPiece)]
    assert [text_of(piece.artifact.parts) for piece in pieces] == ["echo: hello stream world"]
    assert len([event for event in events if isinstance(event, Progress) and event.message]) == 7
    assert events[-1] == Done()


@pytest.mark.parametrize(
    ("state", "ending"),
    [
        (TaskState.COMPLETED, Done(message("so"))),
        (TaskState.FAILED, Failed("The agent reported that the task failed", message("so"))),
        (TaskState.REJECTED, Failed("The agent rejected the task", message("so"), rejected=True)),
        (TaskState.CANCELED, Canceled(message("so"))),
        (TaskState.INPUT_REQUIRED, Ask(message("so"))),
        (TaskState.AUTH_REQUIRED, Ask(message("so"), auth=True)),
    ],
)
def test_each_state_that_ends_a_turn_has_its_ending(state: TaskState, ending: Event) -> None:
    assert ended(task(state, "so")) == [RefLearned(VendorRef("c", "t")), ending]
    update = TaskStatusUpdateEvent("t", "c", TaskStatus(state, message("so", task_id="t")))
    assert ended(update) == [RefLearned(VendorRef("c", "t")), ending]


TRACE = "/srv/agents/echo/agent.py"
UNDONE = {
    TaskState.FAILED: ("The agent reported that the task failed; the agent's own error text is only in the log", False),
    TaskState.REJECTED: ("The agent rejected the task; the agent's own error text is only in the log", True),
}


@pytest.mark.parametrize("state", UNDONE)
def test_the_inside_of_an_agent_that_failed_is_for_the_log_alone(state: TaskState) -> None:
    reason, rejected = UNDONE[state]
    told = {"place": TRACE, "code": "RuntimeError"}
    artifact = Artifact("a", (Part(text=TRACE),), metadata=told)
    whole = ended(task(state, TRACE, metadata=told, artifacts=(artifact,)))
    update = ended(TaskStatusUpdateEvent("t", "c", TaskStatus(state, message(TRACE)), told))
    shown = {"code": "RuntimeError"}
    assert whole[1] == ArtifactPiece(Artifact("a", (Part(text=TRACE),), metadata=shown))
    assert (len(whole), len(update)) == (3, 2)
    for failed in (whole[-1], update[-1]):
        assert isinstance(failed, Failed) and failed.metadata == shown
        assert (failed.reason, failed.message, failed.rejected, failed.kind) == (reason, None, rejected, "")
        assert failed.detail.count(TRACE) == 2 + (failed is whole[-1])


def test_a_canceled_task_tells_no_more_than_one_that_failed() -> None:
    assert ended(task(TaskState.CANCELED, TRACE, metadata={"place": TRACE, "code": 7}))[-1] == Canceled(metadata={"code": 7})


def test_where_an_agent_is_called_is_none_of_what_it_tells_of_a_failure() -> None:
    words = "sales-7f9c.run.example has no more room"
    for address, shown in (("https://sales-7f9c.run.example/a2a", False), ("https://other.example/a2a", True), ("", True)):
        (*_, failed) = A2ATurnReader(None, address).events(task(TaskState.FAILED, words))
        assert isinstance(failed, Failed) and (failed.message is not None) is shown


def test_a_stack_trace_in_a_status_is_withheld_and_artifacts_pass_unchanged() -> None:  # attack LOG-02
    stack = 'No luck:\nTraceback (most recent call last):\n  File "a.py", line 3, in run'
    artifact = Artifact("log", (Part(text=stack),))
    events = ended(task(TaskState.WORKING, stack), TaskArtifactUpdateEvent("t", "c", artifact), task(TaskState.COMPLETED, stack))
    assert events[1:] == [Progress(detail=stack), ArtifactPiece(artifact, last_chunk=False), Done(message(stack))]
    assert ended(task(TaskState.WORKING, TRACE))[-1] == Progress(message(TRACE))


def test_what_an_agent_says_of_a_success_is_its_own() -> None:
    told = {"place": TRACE}
    assert ended(task(TaskState.COMPLETED, TRACE, metadata=told))[1:] == [Done(message(TRACE), told)]


def test_an_agent_may_answer_with_a_message_and_keep_no_task() -> None:
    assert ended(message("hi", context_id="c")) == [RefLearned(VendorRef("c")), Replied(message("hi"))]
    assert ended(message("hi")) == [Replied(message("hi"))]


def test_nothing_is_read_after_an_ending() -> None:
    reading = A2ATurnReader(None)
    events = list(reading.events(task(TaskState.COMPLETED, artifacts=(Artifact("a", (Part(text="x"),)),))))
    assert reading.has_ended
    assert [type(event) for event in events] == [RefLearned, ArtifactPiece, Done]


def test_the_agents_own_ids_travel_in_the_ref_alone() -> None:
    events = ended(task(TaskState.WORKING, "busy"), task(TaskState.COMPLETED, "done"))
    assert events == [RefLearned(VendorRef("c", "t")), Progress(message("busy")), Done(message("done"))]


def test_a_known_ref_is_not_told_again() -> None:
    assert ended(task(TaskState.COMPLETED), ref=VendorRef("c", "t")) == [Done()]


def test_a_ref_keeps_what_else_the_gateway_remembered() -> None:
    known = VendorRef("c", "old", {"cursor": 5})
    assert ended(task(TaskState.COMPLETED), ref=known)[0] == RefLearned(VendorRef("c", "t", {"cursor": 5}))


def test_a_poll_that_brings_nothing_new_tells_nothing_new() -> None:
    working = task(TaskState.WORKING, artifacts=(Artifact("a", (Part(text="x"),)),))
    assert [type(event) for event in ended(working, working, working)] == [RefLearned, ArtifactPiece, Progress]


def test_the_whole_artifact_replaces_its_pieces() -> None:
    first = TaskArtifactUpdateEvent("t", "c", Artifact("a", (Part(text="x"),)))
    second = TaskArtifactUpdateEvent("t", "c", Artifact("a", (Part(text="y"),)), append=True, last_chunk=True)
    whole = Artifact("a", (Part(text="x"), Part(text="y")))
    pieces = [event for event in ended(first, second, task(TaskState.COMPLETED, artifacts=(whole,))) if isinstance(event, ArtifactPiece)]
    assert [(piece.append, piece.last_chunk) for piece in pieces] == [(False, False), (True, True), (False, True)]
    assert pieces[-1].artifact == whole


def test_what_an_agent_says_last_is_its_answer_where_it_completes_without_one() -> None:
    works = TaskStatusUpdateEvent("t", "c", TaskStatus(TaskState.WORKING, message("Rain", context_id="c", task_id="t")))
    done = TaskStatusUpdateEvent("t", "c", TaskStatus(TaskState.COMPLETED))
    ending = ended(works, done)[-1]
    assert ending == Done(message("Rain"))
    given = TaskArtifactUpdateEvent("t", "c", Artifact("a", (Part(text="Sun"),)))
    assert ended(works, given, done)[-1] == Done()


def test_an_answer_that_stands_in_the_history_alone_is_found() -> None:
    history = (Message("m-1", Role.USER, (Part(text="hi"),)), message("there", task_id="t"))
    assert ended(task(TaskState.COMPLETED, history=history))[-1] == Done(message("there"))
    assert ended(task(TaskState.COMPLETED, history=history[:1]))[-1] == Done()


def test_a_question_put_as_an_artifact_is_asked() -> None:
    question = Artifact("a", (Part(data={"question": "Refund?"}),), name="Interrupt")
    assert ended(task(TaskState.INPUT_REQUIRED, artifacts=(question,)))[-1] == Ask(Message("a", Role.AGENT, question.parts))


def test_an_agent_that_changes_the_task_is_refused() -> None:
    with pytest.raises(UpstreamFault):
        ended(task(TaskState.WORKING), TaskStatusUpdateEvent("another", "c", TaskStatus(TaskState.COMPLETED)))


def test_an_unknown_state_tells_which_task_to_ask_for() -> None:
    reading, unknown = A2ATurnReader(None), UnknownState()
    with pytest.raises(UnknownState):
        list(reading.learn_ids_of(unknown))
    unknown.context_id, unknown.task_id = "c", "t"
    assert list(reading.learn_ids_of(unknown)) == [RefLearned(VendorRef("c", "t"))]
    assert (reading.task_id, reading.has_ended) == ("t", False)


@given(st.lists(peer_events, max_size=5))
def test_whatever_comes_there_is_at_most_one_ending_and_it_is_last(answers: list[Any]) -> None:
    reading, events = A2ATurnReader(None), list[Event]()
    try:
        for answer in answers:
            if not reading.has_ended:
                events += reading.events(answer)
    except UpstreamFault:
        pass
    assert [event for event in events if type(event) in ENDINGS] == ([events[-1]] if reading.has_ended else [])


FORGED = {"urn:interlock:a2a:error": {"reason": "KILLED"}, "URN:Interlock:a2a:withheld": {"correlationId": "t"}}


# attack: an agent passes for the gateway
@pytest.mark.parametrize("own", [{}, {"a": 1}])
def test_nothing_of_an_agent_is_said_in_the_gateways_name(own: dict[str, int]) -> None:
    forged, plain = FORGED | own, own or UNSET
    said = Message("m", Role.AGENT, (Part(text="x", metadata=forged), Part(text="y")), metadata=forged)
    clean = Message("m", Role.AGENT, (Part(text="x", metadata=plain), Part(text="y")), metadata=plain)
    artifact, kept = Artifact("a", said.parts, metadata=forged), Artifact("a", clean.parts, metadata=plain)
    for state in TaskState:
        status = TaskStatus(state, said)
        for answer, pieces in ((TaskStatusUpdateEvent("t", "c", status, forged), []), (Task("t", "c", status, (artifact,)), [kept])):
            events = list(A2ATurnReader(None).events(answer))
            assert "interlock" not in str(events).lower()
            assert getattr(events[-1], "message", clean) == clean
            assert [event.artifact for event in events if isinstance(event, ArtifactPiece)] == pieces
    assert list(A2ATurnReader(None).events(said)) == [Replied(clean)]
    (_, piece) = A2ATurnReader(None).events(TaskArtifactUpdateEvent("t", "c", artifact))
    assert isinstance(piece, ArtifactPiece) and piece.artifact == kept


def test_the_metadata_of_an_update_stays_on_it_and_a_task_tells_only_what_is_new() -> None:
    working = TaskStatusUpdateEvent("t", "c", TaskStatus(TaskState.WORKING), {"a": 1, "urn:interlock:x": 1})
    artifact = Artifact("a", (Part(text="x"),))
    piece = TaskArtifactUpdateEvent("t", "c", artifact, metadata={"a": 1, "b": None, "Urn:Interlock:y": 1})
    whole = Task("t", "c", TaskStatus(TaskState.COMPLETED), artifacts=(artifact,), metadata={"a": 1, "b": None})
    assert ended(working, working, piece, whole)[1:] == [
        Progress(metadata={"a": 1}),
        Progress(metadata={"a": 1}),
        ArtifactPiece(artifact, last_chunk=False, metadata={"a": 1, "b": None}),
        Done(metadata={"b": None}),
    ]


@pytest.mark.parametrize("state", [state for state in TaskState if state is not TaskState.SUBMITTED])
def test_a_status_update_with_metadata_is_one_event_that_has_it(state: TaskState) -> None:
    (_, event) = ended(TaskStatusUpdateEvent("t", "c", TaskStatus(state, message("so")), {"code": 7, "urn:interlock:x": 1}))
    assert isinstance(event, Progress | Ask | Done | Failed | Canceled)
    assert (event.metadata, event.message) == ({"code": 7}, message("so"))


def test_words_that_were_heard_before_do_not_take_new_metadata_with_them() -> None:
    again = TaskStatusUpdateEvent("t", "c", TaskStatus(TaskState.WORKING, message("so")), {"percent": 50})
    assert ended(again, again)[1:] == [Progress(message("so"), {"percent": 50}), Progress(metadata={"percent": 50})]
