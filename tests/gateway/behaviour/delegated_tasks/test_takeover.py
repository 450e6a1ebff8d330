"""Takeover: a turn whose process is gone goes on at its agent in one other process, by the grant it began with, and ends once."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from adapters.contract import (
    ArtifactPiece,
    Ask,
    Call,
    CannotReattach,
    Done,
    Event,
    Failed,
    InvalidAnswer,
    Progress,
    RefLearned,
    Turn,
    VendorRef,
)
from adapters.mcp_client.wire.messages import McpAnswer, McpRequest
from adapters.task import Artifact, Message, Part, Task, TaskState
from gateway.ingress.http.error_bodies import a2a_details
from gateway.ingress.http.errors import describe
from gateway.storage.database import WriteFailed
from gateway.tasks.log import RUNNING_STATES, TaskRecord
from gateway.tasks.turns.in_flight import ShuttingDown
from policies.delegation.kills import Kill
from policies.tables import audit_records as audit_table
from registry.cards.card import RegistrationStatus
from tests.fakes.processes import Process, ScriptedAgents, process, sending, tool_call
from tests.fakes.waiting import until

STOPPED = "The gateway stopped while the agent was working and could not reattach. The agent was told to stop."
LOST = "The gateway stopped while the agent was working; the outcome is not known."


class Lasting(ScriptedAgents):
    """Agents that can be asked what became of a turn. Each listener of one is noted, with the call that it came with."""

    def __init__(self) -> None:
        super().__init__()
        self.script = self.at_work
        self.listeners: list[tuple[Turn, Task, Call]] = []
        self.offers_it = True
        self.answer: tuple[Event, ...] = (ArtifactPiece(Artifact("a", (Part(text="whole"),))), Done())

    async def at_work(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        yield RefLearned(VendorRef("c", f"v-{len(self.calls)}"))
        yield Progress()
        yield ArtifactPiece(Artifact("a", (Part(text="wh"),)), last_chunk=False)
        await asyncio.Event().wait()

    async def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        if not self.offers_it:
            raise CannotReattach
        self.listeners.append((turn, known, call))
        await self.gate.wait()
        for event in self.answer:
            yield event


@pytest.fixture
async def here(tmp_path: Path, database_url: str) -> AsyncIterator[Process]:
    async with process(tmp_path / "here", database_url, Lasting()) as built:
        yield await built.registered()


@pytest.fixture
async def there(here: Process, tmp_path: Path, database_url: str) -> AsyncIterator[Process]:
    async with process(tmp_path / "there", database_url, here.agents) as built:
        yield built


@pytest.fixture
async def elsewhere(here: Process, tmp_path: Path, database_url: str) -> AsyncIterator[Process]:
    async with process(tmp_path / "elsewhere", database_url, here.agents) as built:
        yield built


async def gone(dead: Process) -> None:
    """The other processes take it for dead. What it still does it does as a process that was paused would."""
    await dead.gateway.database.write(lambda batch: batch.run("DELETE FROM processes WHERE id = ?", (dead.gateway.process,)))


async def at_work(here: Process, count: int = 1) -> list[str]:
    """Tasks whose agents work, with all that is kept of them."""
    opened = [await here.calls.agents.start(await here.caller(), sending(str(number))) for number in range(count)]
    for one in opened:
        await until(lambda one=one: _has_artifact(here, one.row.id))  # type: ignore[misc]  # of this very one
    return [one.row.id for one in opened]


async def _has_artifact(here: Process, task_id: str) -> bool:
    return bool((await here.looked(task_id)).to_task().artifacts)


async def ended(there: Process, task_id: str) -> TaskRecord:
    async def is_over() -> bool:
        return (await there.looked(task_id)).row.has_ended

    await until(is_over)
    record = await there.looked(task_id)
    states = [event.status.state for event in record.events if event.kind == "status"]
    assert [state for state in states if state in (TaskState.COMPLETED, TaskState.FAILED)] == [record.row.state] == [states[-1]]
    return record


def reason(record: TaskRecord) -> str:
    message = record.to_task().status.message
    return str(message.parts[0].text) if isinstance(message, Message) else ""


def listeners(process: Process) -> list[tuple[Turn, Task, Call]]:
    assert isinstance(process.agents, Lasting)
    return process.agents.listeners


async def decisions(process: Process, task_id: str) -> list[Any]:
    query = select(audit_table.c.body).where(audit_table.c.kind == "decision").order_by(audit_table.c.at)
    rows = await process.gateway.database.read(lambda connection: connection.execute(query).scalars().all())
    return [body for body in map(json.loads, rows) if body["task_id"] == task_id]


async def test_a_process_that_shuts_down_hands_its_turns_over(here: Process, there: Process) -> None:
    (task_id,) = await at_work(here)
    assert here.calls.turn_runner.hand_over() == 1
    await here.calls.close()
    assert (await here.looked(task_id)).row.state is TaskState.WORKING and not here.agents.cancels
    await gone(here)
    with capture_logs() as lines:
        assert await there.takeover.run_once() == 1
    (line,) = [line for line in lines if line["event"] == "tasks_recovered"]
    assert (line["count"], line["resumed"], line["failed"], line["resumed_tasks"]) == (1, 1, 0, [task_id])
    here.agents.gate.set()
    record = await ended(there, task_id)
    assert record.row.state is TaskState.COMPLETED and record.row.runner == ""


async def test_callers_of_a_process_that_shuts_down_learn_which_task_goes_on(here: Process) -> None:
    waiting = asyncio.create_task(here.calls.agents.send(await here.caller(), sending("x")))
    await until(lambda: here.calls.turn_runner.in_flight_count == 1)
    here.calls.turn_runner.hand_over()
    with pytest.raises(ShuttingDown) as refused:
        await waiting
    assert (await here.looked(refused.value.task_id)).row.state in RUNNING_STATES
    said = describe(refused.value)
    assert (said.mapping.reason_id, said.mapping.status, said.retry_after, said.task_id) == ("shutting-down", 503, 1, refused.value.task_id)
    assert refused.value.task_id in said.detail and a2a_details(said)[0]["metadata"] == {"taskId": refused.value.task_id}


async def test_a_process_that_shuts_down_sends_nothing_new(here: Process) -> None:
    here.calls.turn_runner.hand_over()
    with pytest.raises(ShuttingDown):
        await here.calls.agents.send(await here.caller(), sending("x"))
    assert here.agents.calls == []


async def test_a_tool_call_is_cut_when_its_process_shuts_down(here: Process) -> None:
    begun = asyncio.Event()

    async def hang(call: Call, request: McpRequest) -> McpAnswer:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    here.tools.call = hang  # type: ignore[method-assign]  # a server that never answers
    waiting = asyncio.create_task(here.calls.servers.call(await here.caller(), tool_call("x")))
    await begun.wait()
    assert here.calls.turn_runner.hand_over() == 1
    with pytest.raises(ShuttingDown, match="outcome of the call is not known"):
        await waiting


async def test_a_turn_goes_on_at_its_agent_when_its_process_is_gone(here: Process, there: Process) -> None:
    (task_id,) = await at_work(here)
    assert await there.takeover.run_once() == 0  # its process lives
    await gone(here)
    assert await there.takeover.run_once() == 1
    await until(lambda: len(listeners(here)) == 1)
    ((turn, known, call),) = listeners(here)
    assert turn.ref == VendorRef("c", "v-1") and not turn.message.parts
    assert [part.text for part in known.artifacts[0].parts] == ["wh"]
    record = await there.looked(task_id)
    assert record.row.runner == there.gateway.process and record.row.state is TaskState.WORKING
    assert call.grant.delegation.grant_id == record.row.grant_id
    here.agents.gate.set()
    record = await ended(there, task_id)
    assert record.row.state is TaskState.COMPLETED
    assert [part.text for part in record.to_task().artifacts[0].parts] == ["whole"]
    assert len(here.agents.calls) == 1  # nothing was sent twice


async def test_who_goes_on_with_a_turn_is_decided_and_recorded(here: Process, there: Process) -> None:
    (task_id,) = await at_work(here)
    await gone(here)
    await there.takeover.run_once()
    first, second = await decisions(there, task_id)
    assert (second["allowed"], second["reason_id"], second["grant_id"]) == (
        True,
        "turn-under-way",
        (await there.looked(task_id)).row.grant_id,
    )
    assert (first["principal"], first["txn"]) == (second["principal"], second["txn"])
    here.agents.gate.set()
    await ended(there, task_id)


async def test_of_several_processes_one_takes_a_turn_up_and_the_lost_one_writes_no_more(
    here: Process, there: Process, elsewhere: Process
) -> None:
    tasks = await at_work(here, 6)
    await gone(here)
    counts = await asyncio.gather(*(one.takeover.run_once() for one in (there, elsewhere, there, elsewhere)))
    assert sum(counts) == 6
    await until(lambda: len(listeners(here)) == 6)
    assert len({turn.ref.task_id for turn, _, _ in listeners(here) if turn.ref}) == 6
    here.agents.gate.set()
    records = [await ended(there, task_id) for task_id in tasks]
    assert {record.row.state for record in records} == {TaskState.COMPLETED}
    await until(lambda: not here.calls.turn_runner._background_turns or len(listeners(here)) == 6)
    assert await there.takeover.run_once() == await elsewhere.takeover.run_once() == 0


async def test_a_turn_may_be_taken_up_again_and_again(here: Process, there: Process, elsewhere: Process) -> None:
    (task_id,) = await at_work(here)
    await gone(here)
    await there.takeover.run_once()
    await until(lambda: len(listeners(here)) == 1)
    await gone(there)
    await elsewhere.takeover.run_once()
    await until(lambda: len(listeners(here)) == 2)
    here.agents.gate.set()  # both hear the end; one of them may say so
    record = await ended(elsewhere, task_id)
    assert record.row.state is TaskState.COMPLETED


async def test_a_question_that_the_agent_has_come_to_is_asked(here: Process, there: Process) -> None:
    (task_id,) = await at_work(here)
    await gone(here)
    assert isinstance(here.agents, Lasting)
    here.agents.answer = (Ask(Message("m", "ROLE_AGENT", (Part(text="which size?"),))),)  # type: ignore[arg-type]  # as on the wire
    here.agents.gate.set()
    await there.takeover.run_once()
    await until(lambda: _waits(there, task_id))


async def _waits(process: Process, task_id: str) -> bool:
    return (await process.looked(task_id)).row.state is TaskState.INPUT_REQUIRED


@pytest.mark.parametrize(("confirms", "says"), [(True, STOPPED), (False, LOST)])
async def test_an_agent_that_can_not_be_asked_is_told_to_stop(here: Process, there: Process, confirms: bool, says: str) -> None:
    (task_id,) = await at_work(here)
    await gone(here)
    assert isinstance(here.agents, Lasting)
    here.agents.offers_it, here.agents.confirms = False, confirms
    await there.takeover.run_once()
    record = await ended(there, task_id)
    assert (record.row.state, reason(record)) == (TaskState.FAILED, says)
    assert here.agents.cancels == [VendorRef("c", "v-1")]


async def test_a_turn_whose_agent_never_named_its_task_is_lost(here: Process, there: Process) -> None:
    gate = asyncio.Event()

    async def silent(turn: Turn, call: Call) -> AsyncIterator[Event]:
        await gate.wait()
        yield Done()

    here.agents.script, here.agents.names = silent, False
    opened = await here.calls.agents.start(await here.caller(), sending("hello"))
    await until(lambda: bool(here.agents.calls))
    await gone(here)
    assert await there.takeover.run_once() == 1
    record = await ended(there, opened.row.id)
    assert reason(record) == LOST and here.agents.cancels == [] and listeners(here) == []
    gate.set()


async def test_a_task_that_was_not_sent_yet_is_not_asked_for(here: Process, there: Process) -> None:
    """Its process was killed between the commit and the first byte: nobody knows, and nothing is sent now."""
    here.shaky.writes = ["kept unseen"]
    with pytest.raises(WriteFailed):
        await here.calls.agents.send(await here.caller(), sending("hello"))
    await gone(here)
    assert await there.takeover.run_once() == 1
    assert here.agents.calls == [] and listeners(here) == []


async def revoke(process: Process, grant_id: str) -> None:
    grants, now = process.gateway.rulings.grants, process.memory.now()
    await process.gateway.database.write(lambda batch: grants.revoke(batch, "default", grant_id, now))


async def test_a_turn_whose_grant_was_revoked_is_not_gone_on_with(here: Process, there: Process) -> None:  # attack DLG-10
    (task_id,) = await at_work(here)
    await revoke(here, (await here.looked(task_id)).row.grant_id)
    await gone(here)
    assert await there.takeover.run_once() == 1
    assert (await ended(there, task_id)).row.state is TaskState.FAILED
    assert listeners(here) == [] and here.agents.cancels == []


@pytest.mark.parametrize(("kind", "name"), [("user", "default|interlock-development|alice"), ("agent", "sales")])
async def test_a_turn_of_who_was_stopped_is_not_gone_on_with(here: Process, there: Process, kind: str, name: str) -> None:
    (task_id,) = await at_work(here)
    await gone(here)
    kill = Kill("default", "k_1", kind, name, "why", "default|dev|admin", there.memory.now())
    await there.gateway.database.write(lambda batch: there.gateway.rulings.kills.write(batch, kill))
    await there.gateway.rulings.kills.reload()
    assert await there.takeover.run_once() == 1
    record = await ended(here, task_id)  # as the person, whom this process does not know to be stopped
    assert reason(record) == "Stopped by an operator of the gateway."
    assert listeners(here) == []


async def test_a_turn_of_an_agent_that_is_held_back_now_is_not_gone_on_with(here: Process, there: Process) -> None:
    (task_id,) = await at_work(here)
    await gone(here)
    await there.gateway.registry.set_status("default", "sales", RegistrationStatus.QUARANTINED)
    assert await there.takeover.run_once() == 1
    assert (await ended(there, task_id)).row.state is TaskState.FAILED
    assert listeners(here) == []


async def test_a_turn_has_no_more_time_than_it_had(here: Process, there: Process) -> None:
    (task_id,) = await at_work(here)
    grant_id = (await here.looked(task_id)).row.grant_id
    soon = there.memory.now() + 20_000_000
    await here.gateway.database.write(lambda batch: batch.run("UPDATE grants SET deadline = ? WHERE id = ?", (soon, grant_id)))
    await gone(here)
    await there.takeover.run_once()
    await until(lambda: len(listeners(here)) == 1)
    left = listeners(here)[0][2].deadline - asyncio.get_running_loop().time()
    assert 0 < left <= 20
    here.agents.gate.set()
    await ended(there, task_id)


async def test_an_agent_that_lost_the_task_fails_it(here: Process, there: Process) -> None:
    (task_id,) = await at_work(here)
    await gone(here)
    assert isinstance(here.agents, Lasting)
    here.agents.answer = (Failed("The agent answered with -32001 (unknown task)", kind=InvalidAnswer.kind),)
    here.agents.gate.set()
    await there.takeover.run_once()
    assert "unknown task" in reason(await ended(there, task_id))


async def test_what_is_read_from_a_stream_of_a_turn_goes_on_in_the_same_numbers(here: Process, there: Process) -> None:
    (task_id,) = await at_work(here)
    record = await there.looked(task_id)
    seen = [event.seq for event in record.events]

    async def read() -> None:
        async for events in there.memory.tasks.follow(record.row, record.row.last_seq):
            seen.extend(event.seq for event in events)

    reading = asyncio.ensure_future(read())
    await gone(here)
    await there.takeover.run_once()
    here.agents.gate.set()
    await asyncio.wait_for(reading, 60)
    assert seen == list(range(1, (await there.looked(task_id)).row.last_seq + 1))


async def test_an_agent_streams_where_its_caller_may_come_back_for_the_task(here: Process) -> None:
    """It names its task early then, and another process can go on with the turn."""
    streamed: list[bool] = []

    async def ends(turn: Turn, call: Call) -> AsyncIterator[Event]:
        streamed.append(turn.stream)
        yield Done()

    here.agents.script = ends
    caller = await here.caller()
    for more in ({}, {"idempotency_key": "k_1"}):
        await here.calls.agents.send(caller, sending("hello", **more))
    assert streamed == [False, True]
