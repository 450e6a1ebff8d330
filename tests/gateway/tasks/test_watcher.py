"""The vigil: what it asks of an agent ends with it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from adapters.contract import Adapter, Call, Event, Progress, Turn, VendorRef
from adapters.task import TaskState
from gateway.tasks.log import TaskRow
from gateway.tasks.turns.recorder import TurnState
from gateway.tasks.watcher import WaitingTaskWatcher
from tests.fakes.a2a_calls import call_to
from tests.fakes.waiting import until

ROW = TaskRow(
    tenant="default",
    id="t_1",
    owner="default|dev|alice",
    context_id="c_1",
    agent="sales",
    state=TaskState.AUTH_REQUIRED,
    parent_id="",
    txn="x_1",
    decision_id="d_1",
    grant_id="g_1",
    created=0,
    updated=0,
    vendor_ref='{"task_id":"theirs"}',
)


class Still:
    """A log in which the task waits."""

    async def find(self, _tenant: str, _owner: str, _task_id: str) -> TaskRow:
        return ROW


class Talkative:
    """An agent that goes on by itself, and says more than anybody hears."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        raise AssertionError("nobody sends it anything")
        yield Progress()

    async def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        try:
            while True:
                yield Progress()
        finally:
            self.closed.set()

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return False


async def test_what_an_agent_is_asked_ends_with_the_turn_that_it_began() -> None:
    agent, call = Talkative(), call_to("http://agent.test")
    held: list[Any] = []

    async def go_on(adapter: Adapter, turn: Turn, call: Call, turned: TurnState) -> TurnState:
        async with aclosing(cast("AsyncGenerator[Event, None]", adapter.run(turn, call))) as events:
            held.append(adapter)  # somebody still knows of it
            await anext(events)
        return turned

    vigil = WaitingTaskWatcher(Still(), lambda: 0)  # type: ignore[arg-type]  # it finds the task, which is all that is asked
    vigil.watch(agent, call.grant, lambda: call, TurnState(ROW, ()), go_on)
    async with asyncio.timeout(60):
        await agent.closed.wait()
    await until(lambda: not vigil._watches and not vigil._resuming)
    assert len(held) == 1
    await vigil.close()


async def test_an_answer_ends_the_watch_but_not_the_turn_that_the_agent_began() -> None:
    agent, call = Talkative(), call_to("http://agent.test")
    begun, gate, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def go_on(_adapter: Adapter, _turn: Turn, _call: Call, turned: TurnState) -> TurnState:
        begun.set()
        await gate.wait()
        ended.set()
        return turned

    vigil = WaitingTaskWatcher(Still(), lambda: 0)  # type: ignore[arg-type]  # see above
    vigil.watch(agent, call.grant, lambda: call, TurnState(ROW, ()), go_on)
    async with asyncio.timeout(60):
        await begun.wait()
        vigil.stop_watching("t_1")
        gate.set()
        await ended.wait()
    assert agent.closed.is_set() and not vigil._watches
    await vigil.close()
