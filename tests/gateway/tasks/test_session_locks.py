"""Claims about sessions of vendors' agents: one turn at a time in each, in whichever processes over one database they are."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from adapters.contract import Adapter, AnswerRefused, Call, Done, Event, Failed, Turn, VendorRef
from adapters.task import TaskState
from adapters.vendors.sdk.faults import SESSION_BUSY_TEXT
from gateway.storage.database import Batch, Database
from gateway.storage.tables import session_locks
from gateway.tasks.log import TaskLog, TaskRow
from gateway.tasks.session_locks import SessionLocks
from gateway.tasks.turns.recorder import TurnState
from gateway.tasks.turns.stores import TaskStores
from policies.ids import new_id, now_us
from registry.cards.card import FEATURES
from tests.fakes.a2a_agents import serving
from tests.fakes.a2a_calls import call_to, turn
from tests.fakes.graph_server import GraphServer
from tests.fakes.house import two
from tests.fakes.reception import Reception
from tests.fakes.waiting import until

postgres = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
OPENED = TurnState(
    TaskRow(
        "default", "t_1", "o", "c", "sales", TaskState.WORKING, parent_id="", txn="", decision_id="", grant_id="", created=0, updated=0
    ),
    (),
)


async def test_a_turn_waits_for_that_of_another_process_and_goes_on_with_its_session(tmp_path: Path, postgres_url: str) -> None:
    graph = GraphServer()
    async with serving(graph) as url, two(tmp_path / "home", postgres_url) as (here, there), asyncio.timeout(60):
        made = await Reception(here).post("/api/agents", url=url, kind="langgraph", name="sales", upstream={"assistant": "echo"})
        assert made.status_code == 201, made.text
        await there.gateway.database.refresh_epochs()
        first = asyncio.create_task(here.send(here.token("alice"), "sales", "wait", contextId="c-1"))
        await graph.working.wait()
        waits = asyncio.Event()

        async def looks_again(seconds: float) -> None:
            waits.set()
            await asyncio.sleep(seconds)

        there.gateway.calls.turn_runner._sessions._pause = looks_again
        second = asyncio.create_task(there.send(there.token("alice"), "sales", "hello", contextId="c-1"))
        await until(lambda: waits.is_set() or len(graph.bodies) > 1)
        assert len(graph.bodies) == 1
        graph.go_on.set()
        ended = [(await each)["result"]["task"] for each in (first, second)]
    assert [task["status"]["state"] for task in ended] == ["TASK_STATE_COMPLETED"] * 2
    assert graph.most == 1 and graph.threads == 1 and len({thread for thread, _ in graph.bodies}) == 1


class Working:
    """An Adapter whose agent is at work until it is let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        self.begun.set()
        await self.gate.wait()
        yield Done()

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return False


class Plainly:
    """Turns, of which only the last event is of interest."""

    async def run_and_record(self, adapter: Adapter, turn: Turn, call: Call, opened: TurnState) -> Any:
        return [event async for event in adapter.run(turn, call)][-1]


class Process:
    def __init__(self, database: Database, name: str) -> None:
        self._name = name
        self._database = database
        memory = TaskStores(database, None, None, TaskLog(database, now_us, name), new_id, now_us)  # type: ignore[arg-type]  # no other is needed
        self.sessions = SessionLocks(memory, Plainly())  # type: ignore[arg-type]  # it does what is needed

    async def joins(self) -> "Process":
        await self._write("INSERT INTO processes (id, started, seen) VALUES (?, 0, 0)")
        return self

    async def dies(self) -> None:
        await self._write("DELETE FROM processes WHERE id = ?")

    async def _write(self, statement: str) -> None:
        def work(batch: Batch) -> None:
            batch.run(statement, (self._name,))

        await self._database.write(work)

    async def run(self, adapter: Adapter, session: str = "s-1", seconds: float = 60.0, features: Any = None, ref: Any = None) -> Any:
        call = call_to("http://a.example/", seconds, **{FEATURES: features or {}})
        opened = TurnState(replace(OPENED.row, context_id=session), ())
        return await self.sessions.run_when_free(adapter, replace(turn("hi"), session=session, ref=ref), call, opened)


@pytest.fixture
async def pair(database: Database) -> tuple[Process, Process]:
    return await Process(database, "p_1").joins(), await Process(database, "p_2").joins()


@postgres
async def test_who_waits_until_the_deadline_is_told_that_the_agent_is_busy(pair: tuple[Process, Process]) -> None:
    here, there = pair
    working, other = Working(), Working()
    first = asyncio.create_task(here.run(working))
    await working.begun.wait()
    for process in (there, here):
        late = await process.run(other, seconds=0.2)
        assert isinstance(late, Failed) and (late.reason, late.kind, late.retryable) == (SESSION_BUSY_TEXT, "AGENT_BUSY", True)
    assert not other.begun.is_set()
    other.gate.set()
    assert isinstance(await there.run(other, session="s-2"), Done)
    working.gate.set()
    assert isinstance(await first, Done) and isinstance(await there.run(other), Done)


async def test_an_answer_whose_turn_does_not_come_in_time_leaves_its_task_waiting(pair: tuple[Process, Process]) -> None:
    working, other = Working(), Working()
    first = asyncio.create_task(pair[0].run(working))
    await working.begun.wait()
    late = await pair[0].run(other, seconds=0.2, ref=VendorRef("s", "r"))
    assert late == AnswerRefused(SESSION_BUSY_TEXT, kind="AGENT_BUSY", retryable=True) and not other.begun.is_set()
    working.gate.set()
    await first


@postgres
async def test_a_session_is_free_again_when_its_process_is_no_more_or_its_time_is_over(
    pair: tuple[Process, Process], database: Database
) -> None:
    here, there = pair
    working, other = Working(), Working()
    other.gate.set()
    first = asyncio.create_task(here.run(working))
    await working.begun.wait()
    await here.dies()
    assert isinstance(await there.run(other), Done)
    working.gate.set()
    await first

    def held_too_long(batch: Batch) -> None:
        batch.connection.execute(session_locks.update().values(holder="p_2", until=now_us() - 1))

    await here.joins()
    await asyncio.gather(*here.sessions._releasing, *there.sessions._releasing)
    left = await database.read(lambda connection: connection.execute(select(session_locks)).all())
    assert left == []
    working = Working()
    second = asyncio.create_task(there.run(working))
    await working.begun.wait()
    await database.write(held_too_long)
    assert isinstance(await here.run(other), Done)
    working.gate.set()
    await second


@postgres
async def test_a_turn_that_is_given_up_while_it_waits_holds_nothing(pair: tuple[Process, Process]) -> None:
    here, _ = pair
    working, other = Working(), Working()
    first = asyncio.create_task(here.run(working))
    await working.begun.wait()
    waiting = [asyncio.create_task(process.run(other)) for process in pair]
    await asyncio.sleep(0)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    working.gate.set()
    other.gate.set()
    await first
    assert [type(await process.run(other)) for process in pair] == [Done, Done]


@postgres
async def test_a_turn_fails_whose_session_is_busy_until_its_deadline(pair: tuple[Process, Process]) -> None:
    here, there = pair
    working, other = Working(), Working()
    other.gate.set()
    first = asyncio.create_task(here.run(working))
    await working.begun.wait()
    assert isinstance(await there.run(other, seconds=0.2), Failed)
    working.gate.set()
    await first


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_process_that_is_alone_with_its_database_keeps_no_row_of_turns(pair: tuple[Process, Process], database: Database) -> None:
    working = Working()
    running = asyncio.create_task(pair[0].run(working))
    await working.begun.wait()
    assert await database.read(lambda connection: connection.execute(select(session_locks)).all()) == []
    working.gate.set()
    await running
