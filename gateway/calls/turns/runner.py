"""Runs the turns of this process, starts the watch of a task that waits, and hands turns over at shutdown."""

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct
from msgspec.structs import replace

from adapters.contract import Adapter, Call, Turn
from adapters.task import INTERRUPTED
from gateway.calls.authorizer import CallAuthorizer
from gateway.tasks.reader import TaskReader
from gateway.tasks.session_locks import SessionLocks
from gateway.tasks.turns.in_flight import InFlight, ShuttingDown, TurnAbandoned
from gateway.tasks.turns.recorder import TurnRecorder, TurnState, outcome_of
from gateway.tasks.turns.stores import TaskStores
from gateway.tasks.watcher import WaitingTaskWatcher
from gateway.telemetry.upstream_calls import TURN, CallTelemetry
from registry.cards.card import FEATURES, Registration

if TYPE_CHECKING:
    from opentelemetry.trace import Span

CLOSING_SECONDS = 2.0
log = structlog.get_logger()


class PreparedTurn(Struct, frozen=True):
    """A turn that is allowed and recorded, ready to run."""

    opened: TurnState
    turn: Turn
    call: Call
    adapter: Adapter
    parent_id: str = ""  # the task that caused the turn; the turn counts among its children
    live_events: object = None  # holds the live events of the task in memory for followers until the turn is over
    reattaching_adapter: Adapter | None = None  # runs this turn instead of `adapter`, for a turn that another process began
    span: "Span | None" = None  # of the turn, if there is a tracer


class TurnRunner:
    """Runs turns that are registered in `in_flight`, each until its agent ends it or the gateway abandons it."""

    def __init__(
        self,
        authorizer: CallAuthorizer,
        stores: TaskStores,
        turns: TurnRecorder,
        in_flight: InFlight,
        watcher: WaitingTaskWatcher,
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
        """Runs a turn as a background task."""
        key = prepared_turn.opened.row.id
        running = self._background_turns[key] = asyncio.create_task(self.run(prepared_turn))
        running.add_done_callback(lambda done: _log_failure(self._background_turns, key, done))

    def run_unattended(self, prepared_turn: PreparedTurn) -> None:
        """Runs a turn whose caller left during the commit that recorded it, so that no recorded message stays unsent."""
        self._in_flight.add_turn(prepared_turn.opened.row.id, "")
        self.run_in_background(replace(prepared_turn, parent_id="", span=None))

    async def run(self, prepared_turn: PreparedTurn) -> TurnState:
        """Runs a turn and returns the state of its task. For an abandoned turn it reads the state.

        Raises EndingNotWritten and ShuttingDown.
        """
        opened, call, began, outcome = prepared_turn.opened, prepared_turn.call, time.perf_counter(), "failed"
        try:
            adapter, turn = prepared_turn.reattaching_adapter or prepared_turn.adapter, prepared_turn.turn
            with self._in_flight.cancellable(opened.row.id, call):
                if needs_session(turn, call.target):
                    turned = await self._sessions.run_when_free(adapter, turn, call, opened)
                else:
                    turned = await self._turns.run_and_record(adapter, turn, call, opened)
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
            await self._turns.record_abandoned_turn(call, opened.row)
            return await self._reader.read_whole(opened)
        finally:
            self._in_flight.remove_turn(opened.row.id, prepared_turn.parent_id)
            self._call_telemetry.count(call.target, TURN, outcome, began)
            self._call_telemetry.finish(prepared_turn.span, outcome)

    async def _run_resumed_by_agent(self, adapter: Adapter, turn: Turn, call: Call, opened: TurnState) -> TurnState:
        """Runs the turn that the agent of a waiting task has started by itself."""
        self._in_flight.add_turn(opened.row.id, "")
        self._authorizer.call_builder.extend_grant_to_call(call, opened.row.id)
        return await self.run(PreparedTurn(opened, turn, call, adapter))

    @property
    def in_flight_count(self) -> int:
        """The number of turns that agents work on now."""
        return len(self._in_flight.turn_grants)

    async def wait_until_idle(self, until: float) -> None:
        """Returns when no turn runs any more, at the latest at `until` on the event loop's clock.

        A turn of a gRPC call runs in the task of the call, which no other part of the shutdown awaits.
        """
        while turns := {*self._background_turns.values(), *self._in_flight.running_turns}:
            if (left := until - asyncio.get_running_loop().time()) <= 0:
                return
            await asyncio.wait(turns, timeout=left)

    def hand_over(self) -> int:
        """Leaves the tasks of all turns to another process. Returns the number of turns and calls that were in flight."""
        return self._in_flight.hand_over()

    async def close(self) -> None:
        """Waits up to CLOSING_SECONDS for background turns, hands over the rest, and ends the watches of waiting tasks."""
        await self.wait_until_idle(asyncio.get_running_loop().time() + CLOSING_SECONDS)
        self.hand_over()
        if self._background_turns:
            await asyncio.wait(self._background_turns.values(), timeout=CLOSING_SECONDS)
        await self._watcher.close()


def needs_session(turn: Turn, target: Registration) -> bool:
    """Returns whether a turn waits for the other turns of its session, since its agent does one turn of a session at a time."""
    return bool(turn.session) and not target.facts.get(FEATURES, {}).get("parallel")


def _log_failure(background: dict[str, asyncio.Task[TurnState]], key: str, done: "asyncio.Task[TurnState]") -> None:
    background.pop(key, None)
    if not done.cancelled() and (error := done.exception()) is not None and not isinstance(error, ShuttingDown):
        log.error("turn_not_kept", task_id=key, error=type(error).__name__)
