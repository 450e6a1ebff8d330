"""Turns: whatever the agent says and the database does, a task ends once, with all that was said."""

import asyncio
import json
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from adapters.contract import (
    AnswerRefused,
    Ask,
    Canceled,
    Done,
    Event,
    Failed,
    Progress,
    Prompt,
    RefLearned,
    Replied,
    Turn,
    UpstreamFault,
    VendorRef,
)
from adapters.task import Message, TaskState
from gateway.storage.database import Database, WriteFailed, engine_for
from gateway.tasks.contracts.prompts import open_prompts
from gateway.tasks.log import TaskLog, TaskMoved, TaskRecord, events_one_by_one
from gateway.tasks.turns.journal import TurnLimits
from gateway.tasks.turns.recorder import EndingNotWritten, TurnRecorder, TurnState
from tests.fakes.a2a_calls import call_to
from tests.fakes.outages import Fate
from tests.fakes.turning import Desk, Scripted, piece, words
from tests.fakes.waiting import SECONDS, until


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def artifact_of(record: TaskRecord) -> str:
    return "".join(str(part.text) for one in record.to_task().artifacts for part in one.parts)


def reason_of(record: TaskRecord) -> str:
    message = record.to_task().status.message
    return str(message.parts[0].text) if isinstance(message, Message) else ""


ENDINGS = [
    (Done(words("so be it")), TaskState.COMPLETED, "ok"),
    (Replied(words("just this")), TaskState.COMPLETED, "ok"),
    (Failed("no luck"), TaskState.FAILED, "failed"),
    (Failed("not mine", rejected=True), TaskState.REJECTED, "rejected"),
    (Canceled(), TaskState.CANCELED, "canceled"),
    (Ask(words("which one?")), TaskState.INPUT_REQUIRED, "asks"),
    (Ask(words("who are you?"), auth=True), TaskState.AUTH_REQUIRED, "asks"),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("ending", "state", "outcome"), ENDINGS, ids=[state.name + type(event).__name__ for event, state, _ in ENDINGS])
async def test_each_ending_is_kept_with_its_outcome(
    database: Database, ending: Event, state: TaskState, outcome: str, stream: bool
) -> None:
    desk = Desk(database)
    turned = await desk.run(RefLearned(VendorRef("c", "t")), Progress(), piece("a"), piece("b"), ending, stream=stream)
    record = await desk.record()
    assert (turned.row, turned.events) == (record.row, record.events)
    assert record.row.state is state and record.row.runner == ""
    assert artifact_of(record) == "ab"
    assert json.loads(record.row.vendor_ref) == {"context_id": "c", "task_id": "t"}
    assert await desk.outcomes() == {outcome: 1}


@pytest.mark.parametrize(
    ("ending", "left"),
    [
        (Done(), ()),
        (Failed("the agent says no"), ()),
        (Canceled(), ()),
        (Ask(prompts=(Prompt("i-2"),)), ("i-2",)),
        (Failed("nobody knows", kind="UPSTREAM"), ("i-1",)),
        (UpstreamFault("nobody knows"), ("i-1",)),
    ],
    ids=["done", "failed", "canceled", "asks", "cut", "broken"],
)
async def test_a_question_counts_as_open_until_the_agent_ends_the_turn_that_answers_it(
    desk: Desk, ending: Event | UpstreamFault, left: tuple[str, ...]
) -> None:  # attack HIT-01
    asked = await desk.run(RefLearned(VendorRef("c", "t")), Ask(prompts=(Prompt("i-1"),)))
    opened = desk.turns.transitions.resumed_events(asked.row, replace(asked.row, runner="p_1"), words("yes"))
    await desk.database.write(lambda batch: desk.log.advance(batch, asked.row, opened.row, opened.events))
    turned = await desk.run(RefLearned(VendorRef("c", "t-2")), piece("a"), ending, opened=opened)
    assert tuple(prompt.id for prompt in open_prompts(turned.row.vendor_ref)) == left
    assert (await desk.record()).row == turned.row


async def test_a_task_whose_answer_is_refused_waits_with_the_ids_and_prompts_that_it_had(desk: Desk) -> None:
    asked = await desk.run(RefLearned(VendorRef("c", "t")), Ask(words("which size?"), prompts=(Prompt("i-1"),)))
    for _ in range(2):
        opened = desk.turns.transitions.resumed_events(asked.row, asked.row, words("yes"))
        await desk.database.write(lambda batch, now=opened, old=asked: desk.log.advance(batch, old.row, now.row, now.events))
        turned = await desk.run(RefLearned(VendorRef("c-2", "t-2")), AnswerRefused("no", "status 422"), opened=opened)
        assert (turned.row.state, turned.row.vendor_ref, turned.is_answer_refused) == (TaskState.INPUT_REQUIRED, asked.row.vendor_ref, True)
        said = (await desk.record()).to_task().status.message
        assert isinstance(said, Message) and [part.text for part in said.parts if isinstance(part.text, str)] == ["no", "which size?"]
        asked = turned
    assert (await desk.record()).row == asked.row


async def test_what_callers_do_not_get_to_see_of_an_agents_words_is_told_to_be_in_the_log(  # attack LOG-02
    desk: Desk,
) -> None:
    with capture_logs() as said:
        await desk.run(Progress(words("busy")), Progress(None, {"step": 2}, "at Shop.java"), Done())
    bodies = [{**json.loads(event.body), "metadata": event.metadata} for event in (await desk.ended()).events if event.kind == "status"]
    (told,) = (body for body in bodies if body.get("message", {}).get("metadata"))
    assert told["state"] == "TASK_STATE_WORKING" and "stack trace" in told["message"]["parts"][0]["text"]
    assert told["message"]["metadata"] == {"urn:interlock:a2a:withheld": {"correlationId": "t_1"}}
    assert "Shop.java" not in json.dumps(bodies) and '"step":2' in json.dumps(bodies, separators=(",", ":"))
    (line,) = (line for line in said if line["event"] == "stack_trace_withheld")
    assert (line["task_id"], line["detail"]) == ("t_1", "at Shop.java")


async def test_what_follows_an_ending_is_not_heard(desk: Desk) -> None:
    await desk.run(piece("a"), Done(), piece("late"), Failed("after all"))
    assert artifact_of(await desk.ended()) == "a"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ([], "The agent ended its turn without an outcome."),
        ([UpstreamFault("The agent's answer broke off", "10.0.0.7 said: secret")], "The agent's answer broke off"),
        ([RuntimeError("secret")], "The gateway could not process the agent's answer."),
    ],
    ids=["nothing", "fault", "bug"],
)
async def test_a_turn_that_breaks_fails_the_task_and_keeps_what_came_before(
    desk: Desk, broken: list[Exception], reason: str, stream: bool
) -> None:
    turned = await desk.run(Progress(), piece("a"), *broken, stream=stream)
    record = await desk.ended()
    assert turned.row == record.row and record.row.state is TaskState.FAILED
    assert reason_of(record) == reason
    assert artifact_of(record) == "a"
    assert "secret" not in str(record.events)


async def test_a_watched_turn_is_kept_as_it_goes_and_another_only_at_its_signs_of_life(desk: Desk) -> None:
    more, gate = asyncio.Event(), asyncio.Event()
    script = (RefLearned(VendorRef("c", "t")), piece("a"), Progress(), more, piece("b"), gate, Done())
    watched, other = await desk.opened("t_watched"), await desk.opened("t_other")
    running = [asyncio.ensure_future(desk.run(*script, stream=one is watched, opened=one)) for one in (watched, other)]
    await desk.reached(4, "t_watched")
    await desk.reached(4, "t_other")
    more.set()
    await desk.reached(5, "t_watched")
    assert artifact_of(await desk.record("t_watched")) == "ab"
    assert artifact_of(await desk.record("t_other")) == "a"
    assert (await desk.record("t_other")).row.runner == "p_1"
    gate.set()
    await asyncio.gather(*running)
    assert artifact_of(await desk.ended("t_other")) == "ab"


LONG = 2_500


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stream_of_thousands_of_words_is_kept_whole_in_fewer_events(desk: Desk, stream: bool) -> None:
    turned = await desk.run(Progress(), *(piece(f"{number} ") for number in range(LONG)), Done(), stream=stream)
    record = await desk.ended()
    assert record.row.state is TaskState.COMPLETED
    assert artifact_of(record) == "".join(f"{number} " for number in range(LONG))
    assert record.row.last_seq < LONG / 2
    assert (turned.row, turned.events) == (record.row, record.events)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("limits", [TurnLimits(events_max=10), TurnLimits(bytes_max=1000)], ids=["events", "bytes"])
async def test_a_turn_beyond_its_bounds_keeps_what_arrived_and_does_not_blame_the_agent(
    desk: Desk, limits: TurnLimits, stream: bool
) -> None:
    desk.limit(limits)
    agent = Scripted(*(Progress(words(f"step {number}")) for number in range(100)), Done())
    turn = Turn(words("x"), stream=stream)
    turned = await desk.turns.run_and_record(agent, turn, call_to("http://agent.test"), await desk.opened())
    record = await desk.ended()
    said = [event.status.message for event in record.events if event.kind == "status"]
    steps = [message.parts[0].text for message in said if isinstance(message, Message)][:-1]
    assert steps == [f"step {number}" for number in range(len(steps))]
    assert len(steps) == 11 if limits.events_max == 10 else len(str(record.events)) > 1000
    assert record.row.state is TaskState.FAILED and agent.closed
    assert "limits.turn_events" in reason_of(record) and "agent" not in reason_of(record)
    last = record.to_task().status.message
    assert isinstance(last, Message) and last.metadata == {"urn:interlock:a2a:error": {"reason": "TURN_TOO_LONG"}}
    assert turned.row == record.row


async def test_a_turn_that_ends_at_its_bounds_has_succeeded(desk: Desk) -> None:
    desk.limit(TurnLimits(events_max=10))
    await desk.run(*(Progress(words(f"step {number}")) for number in range(10)), Done())
    assert (await desk.ended()).row.state is TaskState.COMPLETED


async def test_a_turn_outlives_an_outage_and_then_keeps_all_that_was_said(desk: Desk) -> None:
    desk.shaky.writes = ["refused", "refused", "refused"]
    tried = [partial(lambda left: len(desk.shaky.writes) == left, left) for left in (2, 1, 0)]
    await desk.run(Progress(), tried[0], piece("a"), tried[1], piece("b"), tried[2], piece("c"), Done())
    assert artifact_of(await desk.ended()) == "abc"


@pytest.mark.parametrize("outage", [["refused"] * 4, ["kept unseen"], ["refused", "kept unseen", "refused"]])
async def test_an_ending_that_is_not_kept_at_once_is_kept_later(desk: Desk, outage: list[Fate]) -> None:
    """The caller hears of it, whoever follows sees it, and it is the agent's answer."""
    opened = await desk.opened()
    following = asyncio.ensure_future(_last(desk.log, opened))
    desk.shaky.writes = list(outage)
    with pytest.raises(EndingNotWritten) as told:
        await desk.run(piece("a"), Done(words("so be it")), stream=False, opened=opened)
    assert opened.row.id in str(told.value)
    assert isinstance(told.value, WriteFailed)
    record = await desk.ended()
    assert record.row.state is TaskState.COMPLETED
    assert artifact_of(record) == "a"
    assert await following == record.row.last_seq
    assert await desk.outcomes() == {"ok": 1}
    assert desk.pauses == sorted(desk.pauses) and desk.pauses[0] < 1


async def _last(log: TaskLog, opened: TurnState) -> int:
    async with asyncio.timeout(SECONDS):
        return [event.seq async for event in events_one_by_one(log.follow(opened.row, 0))][-1]


async def test_a_late_ending_comes_too_late_for_a_task_that_was_canceled(desk: Desk) -> None:
    desk.shaky.writes = ["refused"]
    opened = await desk.opened()
    with pytest.raises(EndingNotWritten):
        await desk.run(Done(), opened=opened)
    other = TurnRecorder(desk.memory)
    await other.end_task(opened, Canceled())
    assert (await desk.ended()).row.state is TaskState.CANCELED
    await until(lambda: not desk.turns._deferred_endings)
    assert (await desk.ended()).row.state is TaskState.CANCELED


async def test_a_late_ending_is_a_change_of_now(desk: Desk) -> None:
    desk.shaky.writes = ["refused"]
    began = desk.clock.us()
    with pytest.raises(EndingNotWritten):
        await desk.run(Done())
    desk.clock.now += 3600
    record = await desk.ended()
    assert (record.row.updated, record.events[-1].at) == (began + 3_600_000_000, began)


async def test_closing_gives_up_on_late_endings(desk: Desk) -> None:
    desk.shaky.writes = ["refused"] * 1000
    with pytest.raises(EndingNotWritten):
        await desk.run(Done())
    async with asyncio.timeout(SECONDS):
        await desk.turns.close()
    assert not (await desk.record()).row.has_ended


async def test_a_turn_stops_when_somebody_else_has_ended_its_task(desk: Desk) -> None:
    gate = asyncio.Event()
    opened = await desk.opened()
    agent = Scripted(Progress(), gate, piece("late"), asyncio.Event())
    running = asyncio.ensure_future(desk.turns.run_and_record(agent, Turn(words("x"), stream=True), call_to("http://agent.test"), opened))
    async with asyncio.timeout(SECONDS):
        await desk.reached(3)
        record = await desk.record()
        await desk.turns.end_task(TurnState(record.row, record.events), Canceled())
        gate.set()
        turned = await running
    assert turned.row.state is TaskState.CANCELED
    assert agent.closed
    assert artifact_of(await desk.ended()) == ""


async def test_the_gateways_own_hand_ends_a_task_whatever_its_turn_adds_meanwhile(desk: Desk) -> None:
    stale = await desk.opened()
    record = await desk.record()
    moved = TurnState(record.row, record.events)
    gate = asyncio.Event()
    running = asyncio.ensure_future(desk.run(piece("a"), piece("b"), gate, Done(), opened=moved))
    await desk.reached(4)
    assert (await desk.turns.end_task(stale, Canceled())).row.state is TaskState.CANCELED
    gate.set()
    assert (await running).row.state is TaskState.CANCELED
    assert artifact_of(await desk.ended()) == "ab"


async def test_a_task_that_ended_is_not_ended_again(desk: Desk) -> None:
    done = await desk.run(Done())
    assert await desk.turns.end_task(done, Failed("again")) == done
    assert await desk.outcomes() == {"ok": 1}


async def test_an_answer_goes_on_in_the_same_log(desk: Desk) -> None:
    asked = await desk.run(piece("a"), Ask(words("which?")))
    resumed = desk.turns.transitions.resumed_events(asked.row, asked.row, words("this"))
    await desk.database.write(lambda batch: desk.log.advance(batch, asked.row, resumed.row, resumed.events))
    desk.shaky.writes = ["kept unseen", "refused", "refused"]
    with pytest.raises(EndingNotWritten):
        await desk.run(piece("b"), piece("c"), Done(), opened=resumed)
    record = await desk.ended()
    assert artifact_of(record) == "abc"
    assert [message.parts[0].text for message in record.to_task().history] == ["please", "this"]


async def test_a_task_that_moves_on_while_it_is_looked_at_is_not_lost(desk: Desk) -> None:
    opened = await desk.opened()
    found = await desk.record()
    assert (await desk.run(Ask(words("which?")), opened=opened)).row.state is TaskState.INPUT_REQUIRED
    assert not await desk.turns.end_lost_task(found, Failed("lost"))
    assert (await desk.record()).row.state is TaskState.INPUT_REQUIRED


async def test_a_task_that_nobody_works_on_is_ended_once(desk: Desk) -> None:
    await desk.opened()
    found = await desk.record()
    assert await desk.turns.end_lost_task(found, Failed("lost"))
    assert not await desk.turns.end_lost_task(found, Failed("lost"))
    assert reason_of(await desk.ended()) == "lost"


async def test_a_process_that_lost_its_turn_stops_writing_and_stops_its_agent(desk: Desk) -> None:
    """It may have been paused for long, and taken for dead."""
    gate = asyncio.Event()
    agent = Scripted(Progress(), gate, piece("late"), Done())
    turn = asyncio.ensure_future(
        desk.turns.run_and_record(agent, Turn(words("x"), stream=True), call_to("http://agent.test"), await desk.opened())
    )
    await desk.reached(3)
    other = TaskLog(desk.database, desk.clock.us, "p_2")
    found = await desk.record()
    claimed = await desk.database.write(lambda batch: other.claim(batch, found.row))
    assert claimed.runner == "p_2"
    gate.set()
    async with asyncio.timeout(SECONDS):
        assert (await turn).row.runner == "p_2"
    record = await desk.record()
    assert (record.row.state, record.row.last_seq, record.row.runner) == (TaskState.WORKING, 3, "p_2")
    with pytest.raises(TaskMoved):
        await desk.database.write(lambda batch: other.claim(batch, found.row))


async def test_late_agent_ids_of_a_superseded_process_do_not_replace_the_new_ones(desk: Desk) -> None:
    opened = await desk.opened()
    other = TaskLog(desk.database, desk.clock.us, "p_2")
    await desk.database.write(lambda batch: other.claim(batch, opened.row))
    await desk.database.write(lambda batch: desk.log.update_vendor_ref(batch, replace(opened.row, vendor_ref='{"task_id":"stale"}')))
    assert (await desk.record()).row.vendor_ref == "{}"


SCRIPTS = st.lists(st.sampled_from(["progress", "piece", "ref"]), max_size=8)
FATES = st.lists(st.sampled_from(["kept", "refused", "kept unseen"]), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SCRIPTS, st.integers(0, len(ENDINGS) - 3), FATES, st.booleans())
def test_a_task_has_one_ending_and_all_that_was_said_whatever_the_database_does(
    sqlite_template: Path, tmp_path: Path, script: list[str], ending: int, fates: list[Fate], stream: bool
) -> None:
    for leftover in tmp_path.glob("law.db*"):
        leftover.unlink()
    (tmp_path / "law.db").write_bytes(sqlite_template.read_bytes())
    asyncio.run(_lawful(f"sqlite:///{tmp_path / 'law.db'}", script, ENDINGS[ending], fates, stream))


async def _lawful(url: str, script: list[str], ending: tuple[Event, TaskState, str], fates: list[Fate], stream: bool) -> None:
    database = Database(engine_for(url))
    database.start()
    desk = Desk(database)
    opened = await desk.opened()
    desk.shaky.writes = list(fates)
    said = [
        piece(str(number)) if act == "piece" else Progress() if act == "progress" else RefLearned(VendorRef("c"))
        for number, act in enumerate(script)
    ]
    with suppress(EndingNotWritten):
        await desk.run(*said, ending[0], stream=stream, opened=opened)
    record = await desk.ended()
    await asyncio.to_thread(database.close)
    assert record.row.state is ending[1]
    assert artifact_of(record) == "".join(str(number) for number, act in enumerate(script) if act == "piece")
