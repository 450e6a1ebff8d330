"""The order of things: found, allowed, kept, sent. Nothing leaves that is not kept, and nothing that was kept is left hanging."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import func, select

from adapters.contract import Ask, Call, Done, Event, Failed, Progress, Turn, UpstreamFault
from adapters.task import TaskState
from gateway.calls.authorizer import CallRefused
from gateway.calls.turns.cancellation import NotCancelable
from gateway.storage.database import WriteFailed
from gateway.storage.tables import tasks as tasks_table
from gateway.tasks.log import RECENTLY_MOVED_US, TaskNotWaiting, UnknownTask, events_one_by_one
from gateway.tasks.reader import IdempotencyConflict, TaskReader
from gateway.tasks.turns.in_flight import CHILD_TASKS_MAX, TooManyTasks
from gateway.tasks.turns.recorder import EndingNotWritten, TurnState
from gateway.telemetry.spans import TraceContext
from policies.callers import Caller
from policies.tables import audit_records as audit_table
from tests.fakes.outages import Fate
from tests.fakes.processes import Process, process, sending, tool_call
from tests.fakes.waiting import SECONDS, until

TRAIL = TraceContext()


@pytest.fixture
async def here(tmp_path: Path, database_url: str) -> AsyncIterator[Process]:
    async with process(tmp_path / "here", database_url) as built:
        yield await built.registered()


@pytest.fixture
async def there(here: Process, tmp_path: Path, database_url: str) -> AsyncIterator[Process]:
    """Another process on the same database, which calls the same agents."""
    async with process(tmp_path / "there", database_url, here.agents) as built:
        yield built


async def tasks_of(here: Process) -> Counter[str]:
    """How many tasks are in which state."""
    query = select(tasks_table.c.state, func.count()).group_by(tasks_table.c.state)
    rows = await here.gateway.database.read(lambda connection: connection.execute(query).all())
    return Counter(dict(rows))


async def records_of(here: Process, kind: str) -> list[Any]:
    query = select(audit_table.c.body).where(audit_table.c.kind == kind).order_by(audit_table.c.seq)
    rows = await here.gateway.database.read(lambda connection: connection.execute(query).scalars().all())
    return [json.loads(body) for body in rows]


async def ended(here: Process, turned: TurnState) -> TurnState:
    async def over() -> bool:
        return (await here.looked(turned.row.id)).row.has_ended

    await until(over)
    record = await here.looked(turned.row.id)
    return TurnState(record.row, record.events)


def reason(turned: TurnState) -> str:
    return str(json.loads(turned.events[-1].body).get("message", {}).get("parts", [{}])[0].get("text", ""))


async def test_what_is_not_kept_is_not_sent(here: Process) -> None:
    caller = await here.caller()
    for act in (here.calls.agents.send, here.calls.agents.start):
        here.shaky.writes = ["refused"]
        with pytest.raises(WriteFailed):
            await act(caller, sending("hello"))
    here.shaky.writes = ["refused"]
    with pytest.raises(WriteFailed):
        await here.calls.servers.call(caller, tool_call("SKU-7"))
    assert here.agents.calls == [] and here.tools.calls == []
    assert await tasks_of(here) == {}
    assert await records_of(here, "decision") == []
    assert (await here.calls.agents.send(caller, sending("hello"))).row.state is TaskState.COMPLETED


async def test_a_refusal_that_can_not_be_kept_is_none(here: Process) -> None:
    here.shaky.writes = ["refused"]
    with pytest.raises(WriteFailed):
        await here.calls.agents.send(await here.caller("nora"), sending("hello"))
    with pytest.raises(CallRefused):
        await here.calls.agents.send(await here.caller("nora"), sending("hello"))
    assert [record["allowed"] for record in await records_of(here, "decision")] == [False]


async def test_a_task_whose_opening_was_kept_unseen_is_not_sent_and_ends(here: Process) -> None:
    """The caller was told that it can't be kept, so nothing may happen; but it stands there, and somebody must end it."""
    here.shaky.writes = ["kept unseen"]
    with pytest.raises(WriteFailed):
        await here.calls.agents.send(await here.caller(), sending("hello"))
    assert here.agents.calls == []
    assert await tasks_of(here) == {"TASK_STATE_SUBMITTED": 1}
    assert await here.takeover.run_once() == 0  # maybe it has just been opened
    here.ahead += RECENTLY_MOVED_US
    assert await here.takeover.run_once() == 1
    assert await tasks_of(here) == {"TASK_STATE_FAILED": 1}


async def test_an_answer_that_can_not_be_kept_is_an_error_now_and_the_answer_later(here: Process) -> None:
    here.shaky.writes = ["kept", "refused", "refused"]
    with pytest.raises(EndingNotWritten) as told:
        await here.calls.agents.send(await here.caller(), sending("hello"))
    assert len(here.agents.calls) == 1
    assert await here.takeover.run_once() == 0  # it is late, not lost
    record = await here.looked(told.value.task_id)
    assert (await ended(here, TurnState(record.row, record.events))).row.state is TaskState.COMPLETED


async def test_a_task_whose_process_is_gone_is_ended_by_the_next(here: Process, there: Process) -> None:
    """Also when the last that is known of it is that its answer could not be kept."""
    here.shaky.writes = ["kept"] + ["refused"] * 10_000  # type: ignore[assignment]  # a list of fates
    with pytest.raises(EndingNotWritten) as told:
        await here.calls.agents.send(await here.caller(), sending("hello"))
    assert await there.takeover.run_once() == 0  # who lives may yet keep it
    await here.calls.close()
    await there.gateway.database.write(lambda batch: batch.run("DELETE FROM processes WHERE id = ?", (here.gateway.process,)))
    assert await there.takeover.run_once() == 1
    record = await there.looked(told.value.task_id)
    assert record.row.state is TaskState.FAILED
    assert reason(TurnState(record.row, record.events)) == "The gateway stopped while the agent was working; the outcome is not known."


async def test_two_who_recover_end_each_task_once(here: Process, there: Process) -> None:
    here.agents.script = here.agents.at_work
    opened = [await here.calls.agents.start(await here.caller(), sending(str(number))) for number in range(10)]
    await here.gateway.database.write(lambda batch: batch.run("DELETE FROM processes WHERE id = ?", (here.gateway.process,)))
    counts = await asyncio.gather(*(one.takeover.run_once() for one in (there, there, there)))
    assert sum(counts) >= 10
    here.agents.gate.set()
    for one in opened:
        final = await ended(there, one)
        assert final.row.state is TaskState.FAILED
        assert sum("TASK_STATE_FAILED" in event.body for event in final.events) == 1
    assert await there.takeover.run_once() == 0


@pytest.mark.parametrize("where", ["here", "there"])
async def test_a_running_task_is_canceled_once_the_agent_confirms(here: Process, there: Process, where: str) -> None:
    here.agents.script = here.agents.at_work
    caller = await here.caller()
    opened = await here.calls.agents.start(caller, sending("hello"))
    following = asyncio.ensure_future(_states(here, opened))
    await until(lambda: _at_work(here, opened))
    calls = (here if where == "here" else there).calls
    canceled = await calls.agents.cancel(caller, "sales", opened.row.id, TRAIL)
    assert canceled.row.state is TaskState.CANCELED
    here.agents.gate.set()
    assert (await following)[-1] == "TASK_STATE_CANCELED"
    assert (await ended(here, opened)).row.state is TaskState.CANCELED
    assert [ref.task_id for ref in here.agents.cancels] == ["v-1"]
    assert {record["outcome"] for record in await records_of(here, "outcome")} == {"canceled"}


async def test_an_agent_that_is_to_cancel_may_say_so_to_others_in_its_users_name(here: Process) -> None:
    """Its token points to a grant that stands, and the decision can be found from the trace."""
    here.agents.script = here.agents.at_work
    caller = await here.caller()
    opened = await here.calls.agents.start(caller, sending("hello"))
    await until(lambda: _at_work(here, opened))
    here.agents.confirms = False
    with pytest.raises(NotCancelable):
        await here.calls.agents.cancel(caller, "sales", opened.row.id, TraceContext("a" * 32))
    delegation = here.agents.cancel_calls[0].grant.delegation
    assert (await here.gateway.rulings.grants.find("default", delegation.grant_id)).actor == "sales"
    assert (await records_of(here, "decision"))[-1]["trace_id"] == "a" * 32
    here.agents.gate.set()
    await ended(here, opened)


async def _states(here: Process, opened: TurnState) -> list[str]:
    async with asyncio.timeout(SECONDS):
        return [
            json.loads(event.body)["state"]
            async for event in events_one_by_one(TaskReader(here.memory.tasks).follow_turn(opened))
            if event.kind == "status"
        ]


async def _at_work(here: Process, opened: TurnState) -> bool:
    return (await here.looked(opened.row.id)).row.state is TaskState.WORKING


async def test_a_task_is_not_canceled_when_the_agent_does_not_confirm(here: Process) -> None:
    here.agents.script, here.agents.confirms = here.agents.at_work, False
    caller = await here.caller()
    opened = await here.calls.agents.start(caller, sending("hello"))
    await until(lambda: _at_work(here, opened))
    with pytest.raises(NotCancelable):
        await here.calls.agents.cancel(caller, "sales", opened.row.id, TRAIL)
    here.agents.gate.set()
    assert (await ended(here, opened)).row.state is TaskState.COMPLETED
    with pytest.raises(NotCancelable):
        await here.calls.agents.cancel(caller, "sales", opened.row.id, TRAIL)


async def test_a_task_can_not_be_canceled_by_another(here: Process) -> None:
    here.agents.script = here.agents.at_work
    opened = await here.calls.agents.start(await here.caller(), sending("hello"))
    await until(lambda: _at_work(here, opened))
    with pytest.raises(UnknownTask):
        await here.calls.agents.cancel(await here.caller("bob"), "sales", opened.row.id, TRAIL)
    assert here.agents.cancels == []
    here.agents.gate.set()
    assert (await ended(here, opened)).row.state is TaskState.COMPLETED


async def _on_an_errand(here: Process) -> tuple[Caller, TurnState]:
    """An agent that is at work on a task to the end of the test, and may cause others."""

    async def at_work(turn: Turn, call: Call) -> AsyncIterator[Event]:
        yield Progress()
        await (asyncio.Event() if turn.message.parts[0].text == "errand" else here.agents.gate).wait()
        yield Done()

    here.agents.script = at_work
    caller = await here.caller()
    opened = await here.calls.agents.start(caller, sending("errand"))
    await until(lambda: _at_work(here, opened))
    delegation = here.agents.calls[-1][1].grant.delegation
    looped = replace(delegation, path=(replace(delegation.path[0], agent="another"),))  # the one agent there is may be called again
    return replace(caller, delegation=looped, ruling_key="errand"), opened


async def test_the_limit_of_concurrent_subtasks_holds_for_concurrent_requests(here: Process) -> None:
    agent, _ = await _on_an_errand(here)
    asked = [asyncio.ensure_future(here.calls.agents.start(agent, sending(str(number)))) for number in range(CHILD_TASKS_MAX + 20)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    begun = [outcome for outcome in outcomes if isinstance(outcome, TurnState)]
    assert len(begun) == CHILD_TASKS_MAX
    assert sum(isinstance(outcome, TooManyTasks) for outcome in outcomes) == 20
    here.agents.gate.set()
    await asyncio.gather(*(ended(here, one) for one in begun))
    await until(lambda: len(here.calls.turn_runner._background_turns) == 1)
    again = await here.calls.agents.start(agent, sending("again"))
    assert (await ended(here, again)).row.parent_id == begun[0].row.parent_id


async def test_what_fails_before_it_is_sent_takes_up_no_place(here: Process) -> None:
    agent, _ = await _on_an_errand(here)
    for _ in range(CHILD_TASKS_MAX + 1):
        here.shaky.writes = ["refused"]
        with pytest.raises(WriteFailed):
            await here.calls.agents.start(agent, sending("refused"))
    here.agents.gate.set()
    assert (await ended(here, await here.calls.agents.start(agent, sending("kept")))).row.state is TaskState.COMPLETED


async def test_a_key_gives_the_same_task_again(here: Process, there: Process) -> None:
    caller = await here.caller()
    first = await here.calls.agents.send(caller, sending("hello", idempotency_key="k"))
    for agents in (here.calls.agents, there.calls.agents):
        assert (await agents.send(caller, sending("hello", idempotency_key="k"))).row == first.row
        with pytest.raises(IdempotencyConflict):
            await agents.send(caller, sending("something else", idempotency_key="k"))
    assert len(here.agents.calls) == 1
    assert (await here.calls.agents.send(await here.caller("bob"), sending("hello", idempotency_key="k"))).row.id != first.row.id


@pytest.mark.parametrize("start", [True, False], ids=["start", "send"])
async def test_of_duplicates_at_the_same_moment_one_is_sent_and_all_get_its_task(here: Process, there: Process, start: bool) -> None:
    caller = await here.caller()
    processes = [here.calls.agents, there.calls.agents] * 8
    acts = [(agents.start if start else agents.send)(caller, sending("hello", idempotency_key="k")) for agents in processes]
    outcomes = await asyncio.gather(*acts)
    assert len({outcome.row.id for outcome in outcomes}) == 1
    assert len(here.agents.calls) == 1
    assert (await ended(here, outcomes[0])).row.state is TaskState.COMPLETED
    if not start:
        assert {outcome.row.state for outcome in outcomes} == {TaskState.COMPLETED}


async def test_of_different_messages_under_one_key_at_the_same_moment_one_is_sent(here: Process, there: Process) -> None:
    caller = await here.caller()
    processes = [here.calls.agents, there.calls.agents] * 4
    acts = [agents.send(caller, sending(str(number), idempotency_key="k")) for number, agents in enumerate(processes)]
    outcomes = await asyncio.gather(*acts, return_exceptions=True)
    assert sum(isinstance(outcome, TurnState) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, IdempotencyConflict) for outcome in outcomes) == 7
    assert len(here.agents.calls) == 1


async def test_a_turn_goes_on_when_the_one_who_started_it_leaves(here: Process) -> None:
    here.agents.script = here.agents.at_work
    caller = await here.caller()
    opened: list[TurnState] = []

    async def door() -> None:
        opened.append(await here.calls.agents.start(caller, sending("hello")))
        async for _ in TaskReader(here.memory.tasks).follow_turn(opened[0]):
            pass

    visitor = asyncio.ensure_future(door())
    await until(lambda: bool(opened))
    await until(lambda: _at_work(here, opened[0]))
    visitor.cancel()
    await asyncio.gather(visitor, return_exceptions=True)
    here.agents.gate.set()
    assert (await ended(here, opened[0])).row.state is TaskState.COMPLETED


async def _swept(process: Process) -> bool:
    return await process.takeover.run_once() == 1


async def test_a_turn_whose_caller_was_cut_off_is_found_and_ended(here: Process) -> None:
    """A blocking call that is cancelled, as at shutdown, leaves nobody who would keep its end."""
    here.agents.script = here.agents.at_work
    caller = await here.caller()
    waiting = asyncio.ensure_future(here.calls.agents.send(caller, sending("hello")))
    await until(lambda: bool(here.agents.calls))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await here.takeover.run_once() == 0  # maybe it has just been opened
    here.ahead += RECENTLY_MOVED_US
    await until(lambda: _swept(here))  # one that is still moved by what was under way is left to the next look
    await until(lambda: not here.calls.turn_runner._background_turns)
    assert await tasks_of(here) == {"TASK_STATE_FAILED": 1}


async def test_of_two_answers_to_a_question_one_is_sent(here: Process, there: Process) -> None:
    async def asks(turn: Turn, call: Call) -> AsyncIterator[Event]:
        yield Ask(None)

    here.agents.script = asks
    caller = await here.caller()
    asked = await here.calls.agents.send(caller, sending("hello"))
    here.agents.script = here.agents.at_work
    answers = [
        agents.start(caller, sending("this", task_id=asked.row.id)) for agents in (here.calls.agents, there.calls.agents, here.calls.agents)
    ]
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert sum(isinstance(outcome, TaskNotWaiting) for outcome in outcomes) == 2
    assert sum(isinstance(outcome, TurnState) for outcome in outcomes) == 1
    with pytest.raises(TaskNotWaiting):
        await here.calls.agents.send(caller, sending("that", task_id=asked.row.id))
    await until(lambda: _at_work(here, asked))
    assert asked.row.id in here.calls.parts.in_flight or asked.row.id in there.calls.parts.in_flight
    here.agents.gate.set()
    assert (await ended(here, asked)).row.state is TaskState.COMPLETED
    assert len(here.agents.calls) == 2


@pytest.mark.parametrize("fates", [["kept", "kept", "kept unseen"], ["kept", "kept unseen", "refused", "kept"]])
async def test_a_fault_after_a_sign_of_life_fails_the_task(here: Process, fates: list[Fate]) -> None:
    async def breaks_off(turn: Turn, call: Call) -> AsyncIterator[Event]:
        yield Progress()
        raise UpstreamFault("The agent's answer was cut off")

    here.agents.script = breaks_off
    here.shaky.writes = list(fates)
    opened = await here.calls.agents.start(await here.caller(), sending("hello"))
    final = await ended(here, opened)
    assert (final.row.state, reason(final)) == (TaskState.FAILED, "The agent's answer was cut off")


async def test_every_call_has_an_earlier_decision(here: Process) -> None:
    """In one commit with the task, before the agent hears of it."""
    seen: list[set[str]] = []

    async def looks(turn: Turn, call: Call) -> AsyncIterator[Event]:
        seen.append({record["decision_id"] for record in await records_of(here, "decision")})
        yield Done() if len(seen) % 2 else Failed("no luck")

    here.agents.script = looks
    caller = await here.caller()
    for number in range(4):
        await here.calls.agents.send(caller, sending(str(number)))
    for (_, call), known in zip(here.agents.calls, seen, strict=True):
        assert call.grant.decision.id in known
    assert [record["outcome"] for record in await records_of(here, "outcome")] == ["ok", "failed", "ok", "failed"]


async def test_nothing_is_under_way_when_all_is_done(here: Process) -> None:
    caller = await here.caller()
    for act in (here.calls.agents.send, here.calls.agents.start):
        for _ in range(3):
            await act(caller, sending("hello"))
    await until(lambda: not here.calls.turn_runner._background_turns)
    assert not here.calls.parts.in_flight._turns_per_task and not here.calls.parts.in_flight._children_per_task
