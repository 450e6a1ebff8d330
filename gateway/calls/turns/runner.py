"""The turns of this process while their agents work, and what follows when one waits or is given up."""

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from adapters.contract import Adapter, Call, Turn
from adapters.task import INTERRUPTED
from gateway.calls.authorizer import CallAuthorizer
from gateway.tasks.reader import TaskReader
from gateway.tasks.session_locks import SessionLocks
from gateway.tasks.turns.in_flight import InFlight, ShuttingDown, TurnAbandoned
from gateway.tasks.turns.recorder import TaskStores, TurnRecorder, TurnState, outcome_of
from gateway.tasks.watcher import PausedTaskWatcher
from gateway.telemetry.upstream_calls import CallTelemetry

if TYPE_CHECKING:
    from opentelemetry.trace import Span

CLOSING_SECONDS = 2.0
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PreparedTurn:
    """A turn that is allowed and kept, and can be run."""

    opened: TurnState
    turn: Turn
    call: Call
    adapter: Adapter
    parent_id: str = ""  # the task that caused it, whose places it takes up
    live_events: object = None  # its tail, from before it is opened until its turn is over, for those who follow
    reattaching_adapter: Adapter | None = None  # runs this turn in place of `adapter`
    span: "Span | None" = None  # of the turn, where there is a tracer


class TurnRunner:
    """Runs turns that were entered into `under_way`, each until its agent ends it or somebody gives it up."""

    def __init__(
        self,
        authorizer: CallAuthorizer,
        stores: TaskStores,
        turns: TurnRecorder,
        in_flight: InFlight,
        watcher: PausedTaskWatcher,
        *,
        calls: CallTelemetry,
    ) -> None:
        self._authorizer = authorizer
        self._turns = turns
        self._sessions = SessionLocks(stores, turns)
        self._reader = TaskReader(stores.tasks)
        self._in_flight = in_flight
        self._watcher = watcher
        self._call_telemetry = calls
        self._background_turns: dict[str, asyncio.Task[TurnState]] = {}

    def run_in_background(self, prepared_turn: PreparedTurn) -> None:
        """Runs a turn that nobody waits for."""
        key = prepared_turn.opened.row.id
        running = self._background_turns[key] = asyncio.create_task(self.run(prepared_turn))
        running.add_done_callback(lambda done: _log_failure(self._background_turns, key, done))

    async def run(self, prepared_turn: PreparedTurn) -> TurnState:
        """Runs a turn to its end, or to where somebody else has brought the task. Raises EndingNotKept and ShuttingDown."""
        opened, call, began, outcome = prepared_turn.opened, prepared_turn.call, time.perf_counter(), "failed"
        try:
            turn = self._sessions.run(prepared_turn.reattaching_adapter or prepared_turn.adapter, prepared_turn.turn, call, opened)
            turned = await self._in_flight.run(opened.row.id, turn, call)
            outcome = outcome_of(turned.row.state)
            if turned.row.state in INTERRUPTED:
                self._watcher.watch(
                    prepared_turn.adapter,
                    call.grant,
                    partial(self._authorizer.call_builder.renew_call, call),
                    turned,
                    self._run_resumed_by_agent,
                )
            return turned
        except TurnAbandoned:
            outcome = "canceled"
            return await self._reader.read_whole(opened)
        finally:
            self._in_flight.remove_turn(opened.row.id, prepared_turn.parent_id)
            self._call_telemetry.count(call.target, outcome, began)
            self._call_telemetry.finish(prepared_turn.span, outcome)

    async def _run_resumed_by_agent(self, adapter: Adapter, turn: Turn, call: Call, opened: TurnState) -> TurnState:
        """A turn that nobody asked for: the agent of a task that waited has moved it."""
        self._in_flight.add_turn(opened.row.id, "")
        self._authorizer.call_builder.extend_grant_to_call(call, opened.row.id)
        return await self.run(PreparedTurn(opened, turn, call, adapter))

    @property
    def in_flight_count(self) -> int:
        """How many turns are with an agent now."""
        return len(self._in_flight.turn_grants)

    async def wait_until_idle(self, until: float) -> None:
        """Returns when no turn of `begin` is under way, at the latest at `until` on the event loop's clock."""
        while self._background_turns and (left := until - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._background_turns.values(), timeout=left)

    def hand_over(self) -> int:
        """Leaves the tasks of all turns to another process; returns how many turns and calls were under way."""
        return self._in_flight.hand_over()

    async def close(self) -> None:
        """Waits a moment for turns that nobody waits for, hands over the rest, and ends the watches of tasks that wait."""
        await self.wait_until_idle(asyncio.get_running_loop().time() + CLOSING_SECONDS)
        self.hand_over()
        if self._background_turns:
            await asyncio.wait(self._background_turns.values(), timeout=CLOSING_SECONDS)
        await self._watcher.close()


def _log_failure(background: dict[str, asyncio.Task[TurnState]], key: str, done: "asyncio.Task[TurnState]") -> None:
    background.pop(key, None)
    if not done.cancelled() and (error := done.exception()) is not None and not isinstance(error, ShuttingDown):
        log.error("turn_not_kept", task_id=key, error=type(error).__name__)
