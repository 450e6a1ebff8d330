"""Events that arrive together are written together, and a turn that makes progress moves its task's time in steps."""

from collections.abc import AsyncGenerator, Sequence

import pytest

from adapters.contract import Call, Done, Event, Progress, RefLearned, RunningTurn, Turn, VendorRef
from gateway.storage.database import Database
from gateway.tasks.turns.journal import UPDATED_STEP_US
from tests.fakes.a2a_calls import YieldedBatches, call_to
from tests.fakes.turning import Desk, Scripted, piece, words


class Batching(Scripted):
    """An agent whose events arrive in batches. The turn goes on when the database has all that came before."""

    def __init__(self, desk: Desk, *batches: tuple[Event, ...], seconds: float = 0.0) -> None:
        super().__init__()
        self._desk = desk
        self._batches = batches
        self._seconds = seconds  # between two batches
        self.times: list[int] = []  # the task's `updated` after each batch but the last
        self.writes: list[int] = []

    def begin_turn(self, turn: Turn, call: Call) -> RunningTurn:
        return YieldedBatches(self._yield_batches())

    async def _yield_batches(self) -> AsyncGenerator[Sequence[Event], None]:
        seq = 2
        for batch in self._batches:
            self._desk.clock.now += self._seconds
            yield batch
            seq += sum(not isinstance(event, RefLearned) for event in batch)
            await self._desk.reached(seq)
            self.times.append((await self._desk.record()).row.updated)
            self.writes.append(self._desk.shaky.begun)


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


async def run(desk: Desk, agent: Batching) -> None:
    await desk.turns.run_and_record(agent, Turn(words("please"), stream=True), call_to("http://agent.test"), await desk.opened())


async def test_each_batch_is_one_commit_and_the_last_one_brings_the_ending(desk: Desk) -> None:
    agent = Batching(
        desk, (RefLearned(VendorRef("c", "t")), Progress(), piece("a")), (piece("b"), piece("c")), (piece("d"), Done(), piece("too late"))
    )
    await run(desk, agent)
    record = await desk.ended()
    assert agent.writes == [1, 2] and desk.shaky.begun == 3
    assert [event.kind for event in record.events] == ["message", "status", "status", *["artifact"] * 4, "status"]


async def test_a_task_is_updated_in_steps_while_its_turn_makes_progress(desk: Desk) -> None:
    start, step = desk.clock.us(), UPDATED_STEP_US / 1e6
    pieces = [(piece(str(number)),) for number in range(5)]
    agent = Batching(desk, (Progress(),), *pieces, (Done(),), seconds=step * 0.4)
    await run(desk, agent)
    steps = [round((time - start) / UPDATED_STEP_US, 1) for time in agent.times]
    assert steps == [0.4, 0.4, 0.4, 1.6, 1.6, 1.6]  # its state changes at once, and pieces of an artifact wait for the step
    assert (await desk.ended()).row.updated == desk.clock.us()
