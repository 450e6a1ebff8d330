"""The work for one event of a turn does not grow with the events before it, counted in bytecode steps and in bytes of memory."""

import asyncio
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from statistics import median
from types import FrameType
from typing import Any

import pytest

from adapters.contract import ArtifactPiece, Call, Done, Event, Turn, VendorRef
from adapters.task import Artifact, Part, TaskState
from gateway.storage.database import Database
from gateway.tasks.events.chunks import SEPARATE_PARTS_MAX
from gateway.tasks.events.entries import TaskRow
from gateway.tasks.turns.journal import DEFAULT_TURN_LIMITS, TurnJournal, TurnState
from tests.fakes.a2a_calls import call_to
from tests.fakes.turning import Desk, piece, words
from tests.fakes.waiting import SECONDS

ROW = TaskRow("default", "t_1", "o", "c_1", "sales", TaskState.WORKING, "", "x", "d", "g", 1, 1, last_seq=2)
SAMPLES = 21
PIECES = 600  # below UNPACED_EVENTS_MAX, from which on a turn waits between its commits
POINTER = 8  # bytes: a copy of a list has as many for each item


def steps_of(act: Callable[[], object]) -> int:
    """The bytecode instructions that `act` runs in this thread."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(previous)
    return count


@contextmanager
def traced_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def memory_of(act: Callable[[], object]) -> int:
    """The most bytes that `act` allocates at any time beyond those that were there, in all threads."""
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    act()
    return tracemalloc.get_traced_memory()[1] - before


def separate(journal: TurnJournal) -> None:
    """One event that no other joins, with a commit of its own."""
    journal.add_piece(ArtifactPiece(Artifact("a", (Part(data=1),)), append=True), 1)
    _commit(journal)


def word(journal: TurnJournal) -> None:
    """One word that joins the event before it."""
    journal.add_piece(piece("x"), 1)
    assert not journal.is_full


def _commit(journal: TurnJournal) -> None:
    fresh = journal.unwritten_events()
    journal.mark_written(journal.row, len(fresh))
    assert len(fresh) == 1 and not journal.is_full and journal.pause_seconds >= 0


@pytest.mark.parametrize("add", [separate, word])
def test_an_event_costs_the_journal_the_same_after_many(add: Callable[[TurnJournal], None]) -> None:
    journal = TurnJournal(TurnState(ROW, ()), DEFAULT_TURN_LIMITS)
    journal.add_piece(ArtifactPiece(Artifact("a", (Part(text="x"),) * SEPARATE_PARTS_MAX)), 1)
    _commit(journal)
    costs = []
    for count in (500, 10_000):
        for _ in range(count):
            add(journal)
        steps = median(steps_of(lambda: add(journal)) for _ in range(SAMPLES))
        with traced_memory():
            memory = median(memory_of(lambda: add(journal)) for _ in range(SAMPLES))
        costs.append((steps, memory))
    (early_steps, early_memory), (late_steps, late_memory) = costs
    assert late_steps <= early_steps + 50
    assert late_memory < early_memory + 1000 * POINTER


class Paced:
    """An agent that sends each piece when its reader has the one before. `costs` has the memory of early and of late pieces."""

    def __init__(self) -> None:
        self.was_read = asyncio.Event()
        self.costs: list[float] = []

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        for count in (20, PIECES):
            for _ in range(count):
                yield self._next_piece()
                await self.was_read.wait()
            found = []
            with traced_memory():
                for _ in range(SAMPLES):
                    tracemalloc.reset_peak()
                    before, _peak = tracemalloc.get_traced_memory()
                    yield self._next_piece()
                    await self.was_read.wait()
                    found.append(tracemalloc.get_traced_memory()[1] - before)
            self.costs.append(median(found))
        yield Done(words("so be it"))

    def _next_piece(self) -> ArtifactPiece:
        self.was_read.clear()
        return ArtifactPiece(Artifact("a", (Part(data=1),)), append=True)

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return True


async def test_an_event_costs_the_turn_and_its_reader_the_same_after_many(database: Database) -> None:
    """Memory of all threads shows copies of earlier events, and their rows where the database reads them again."""
    desk, agent = Desk(database), Paced()
    opened = await desk.opened()

    async def read() -> None:
        async with aclosing(desk.log.follow(opened.row, opened.row.last_seq)) as batches:
            async for _events in batches:
                agent.was_read.set()

    async with asyncio.timeout(SECONDS):
        reader = asyncio.create_task(read())
        await desk.turns.run_and_record(agent, Turn(words("please"), stream=True), call_to("http://agent.test"), opened)
        await reader
    early, late = agent.costs
    assert late < early + PIECES * POINTER / 2
