"""The turns of this process while their agents work, and what follows when one waits or is given up."""

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from adapters.contract import Adapter, Call, Turn
from adapters.task import INTERRUPTED
from gateway.calls.authorizer import Ledger
from gateway.calls.outgoing.telemetry import UpstreamCalls
from gateway.tasks.reader import TaskReader
from gateway.tasks.session_locks import Sessions
from gateway.tasks.turns.in_flight import Abandoned, ShuttingDown, UnderWay
from gateway.tasks.turns.store import Memory, Turned, Turns, outcome_of
from gateway.tasks.watcher import Vigil

if TYPE_CHECKING:
    from opentelemetry.trace import Span

CLOSING_SECONDS = 2.0
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ready:
    """A turn that is allowed and kept, and can be run."""

    opened: Turned
    turn: Turn
    call: Call
    adapter: Adapter
    parent: str = ""  # the task that caused it, whose places it takes up
    held: object = None  # its tail, from before it is opened until its turn is over, for those who follow
    first: Adapter | None = None  # runs this turn in place of `adapter`
    span: "Span | None" = None  # of the turn, where there is a tracer


class Running:
    """Runs turns that were entered into `under_way`, each until its agent ends it or somebody gives it up."""

    def __init__(self, ledger: Ledger, memory: Memory, turns: Turns, under_way: UnderWay, vigil: Vigil, *, calls: UpstreamCalls) -> None:
        self._ledger = ledger
        self._turns = turns
        self._sessions = Sessions(memory, turns)
        self._reader = TaskReader(memory.tasks)
        self._under_way = under_way
        self._vigil = vigil
        self._calls = calls
        self._background: dict[str, asyncio.Task[Turned]] = {}

    def begin(self, ready: Ready) -> None:
        """Runs a turn that nobody waits for."""
        key = ready.opened.row.id
        running = self._background[key] = asyncio.create_task(self.run(ready))
        running.add_done_callback(lambda done: _over(self._background, key, done))

    async def run(self, ready: Ready) -> Turned:
        """Runs a turn to its end, or to where somebody else has brought the task. Raises EndingNotKept and ShuttingDown."""
        opened, call, began, outcome = ready.opened, ready.call, time.perf_counter(), "failed"
        try:
            turn = self._sessions.run(ready.first or ready.adapter, ready.turn, call, opened)
            turned = await self._under_way.run(opened.row.id, turn, call)
            outcome = outcome_of(turned.row.state)
            if turned.row.state in INTERRUPTED:
                self._vigil.begin(ready.adapter, call.grant, partial(self._ledger.calls.renewed, call), turned, self._go_on)
            return turned
        except Abandoned:
            outcome = "canceled"
            return await self._reader.whole(opened)
        finally:
            self._under_way.leave(opened.row.id, ready.parent)
            self._calls.count(call.target, outcome, began)
            self._calls.finish(ready.span, outcome)

    async def _go_on(self, adapter: Adapter, turn: Turn, call: Call, opened: Turned) -> Turned:
        """A turn that nobody asked for: the agent of a task that waited has moved it."""
        self._under_way.enter(opened.row.id, "")
        self._ledger.calls.goes_on(call, opened.row.id)
        return await self.run(Ready(opened, turn, call, adapter))

    @property
    def count(self) -> int:
        """How many turns are with an agent now."""
        return len(self._under_way.turns)

    async def idle(self, until: float) -> None:
        """Returns when no turn of `begin` is under way, at the latest at `until` on the event loop's clock."""
        while self._background and (left := until - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._background.values(), timeout=left)

    def hand_over(self) -> int:
        """Leaves the tasks of all turns to another process; returns how many turns and calls were under way."""
        return self._under_way.hand_over()

    async def close(self) -> None:
        """Waits a moment for turns that nobody waits for, hands over the rest, and ends the watches of tasks that wait."""
        await self.idle(asyncio.get_running_loop().time() + CLOSING_SECONDS)
        self.hand_over()
        if self._background:
            await asyncio.wait(self._background.values(), timeout=CLOSING_SECONDS)
        await self._vigil.close()


def _over(background: dict[str, asyncio.Task[Turned]], key: str, done: "asyncio.Task[Turned]") -> None:
    background.pop(key, None)
    if not done.cancelled() and (error := done.exception()) is not None and not isinstance(error, ShuttingDown):
        log.error("turn_not_kept", task_id=key, error=type(error).__name__)
