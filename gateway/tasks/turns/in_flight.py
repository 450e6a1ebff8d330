"""The running turns and calls of this process, and how many tasks each task has caused."""

import asyncio
import math
from collections.abc import Collection, Sequence
from typing import Any, Protocol

from adapters.contract import Call
from policies.delegation.rulings import Grant

CHILD_TASKS_MAX = 64  # tasks that one task may have in flight at once


class TurnAbandoned(Exception):
    """The turn was abandoned, because its task has ended otherwise."""


class TooManyTasks(Exception):
    """A task has CHILD_TASKS_MAX tasks in flight."""


class ShuttingDown(Exception):
    """This process of the gateway shuts down before the request is answered. `task_id` names a turn that continues elsewhere."""

    def __init__(self, task_id: str = "", called: bool = False) -> None:
        """`called` says that a server was working on the call."""
        text = "This process of the gateway is shutting down; send the request again."
        if task_id:
            text = f"This process of the gateway is shutting down; ask for the task {task_id} instead of sending the message again."
        elif called:
            text = "This process of the gateway is shutting down while the server is at work; the outcome of the call is not known."
        super().__init__(text)
        self.task_id = task_id


class HeldShare(Protocol):
    """What a turn holds of a limit (gateway/calls/limits/meters.py)."""

    def free(self) -> None: ...


class CancellableTurn:
    """The context of a turn at its agent. An object, since a context that is a generator costs each turn three times as much."""

    __slots__ = ("_call", "_in_flight", "_task_id", "_waiting")

    def __init__(self, in_flight: "InFlight", task_id: str, call: Call) -> None:
        self._in_flight = in_flight
        self._task_id = task_id
        self._call = call
        self._waiting: asyncio.Task[Any] | None = None

    def __enter__(self) -> None:
        self._waiting = self._in_flight.begin_turn(self._task_id, self._call)

    def __exit__(self, kind: type[BaseException] | None, _error: object, _traceback: object) -> None:
        error = self._in_flight.end_turn(self._task_id)
        if error is not None and self._waiting is not None and kind is not None and issubclass(kind, asyncio.CancelledError):
            self._waiting.uncancel()
            raise error from None


class InFlight:
    """The turns of this process, from before their first commit to after their last, and how many each task has caused.

    `turn_grants` and `call_grants` have the turns and calls that are now at an agent or server, with their grants.
    """

    def __init__(self) -> None:
        self._turns_per_task: dict[str, int] = {}
        self._children_per_task: dict[str, int] = {}
        self._waiting_tasks: dict[str, asyncio.Task[Any]] = {}
        self._abandoned_turns: set[str] = set()
        self._handing_over = False
        self._shares: dict[str, list[Sequence[HeldShare]]] = {}
        self._abandoned_calls: dict[asyncio.Task[Any], Exception] = {}
        self.turn_grants: dict[str, Grant] = {}
        self.turn_deadlines: dict[str, float] = {}  # by task id, on the event loop's clock
        self.call_grants: dict[asyncio.Task[Any], Grant] = {}

    def add_turn(self, task_id: str, parent_id: str) -> None:
        """Adds a turn. `parent_id` is empty if no task caused it. Raises TooManyTasks."""
        if parent_id:
            if self._children_per_task.get(parent_id, 0) >= CHILD_TASKS_MAX:
                raise TooManyTasks
            _increment(self._children_per_task, parent_id)
        _increment(self._turns_per_task, task_id)

    def hold_shares(self, task_id: str, shares: Sequence[HeldShare]) -> None:
        """Holds shares until the last turn of the task is removed."""
        self._shares.setdefault(task_id, []).append(shares)

    def remove_turn(self, task_id: str, parent_id: str) -> None:
        """Removes a turn, and frees the shares of its task after its last turn."""
        _decrement(self._turns_per_task, task_id)
        if parent_id:
            _decrement(self._children_per_task, parent_id)
        if task_id not in self._turns_per_task:
            for shares in self._shares.pop(task_id, ()):
                for share in shares:
                    share.free()

    def deadline_of(self, task_id: str) -> float:
        """Returns the deadline of a task's turn, on the event loop's clock; infinite if the turn does not run here."""
        return self.turn_deadlines.get(task_id, math.inf) if task_id else math.inf

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._turns_per_task

    def cancellable(self, task_id: str, call: Call) -> "CancellableTurn":
        """A context that makes the turn within it cancellable by `abandon_turn` and `hand_over`. Raises ShuttingDown and TurnAbandoned."""
        return CancellableTurn(self, task_id, call)

    def begin_turn(self, task_id: str, call: Call) -> "asyncio.Task[Any]":
        """Registers the current asyncio task as a turn at its agent, which `abandon_turn` can cancel. Raises ShuttingDown."""
        waiting = asyncio.current_task()
        if waiting is None:
            raise RuntimeError("a turn runs in a task")
        if self._handing_over:
            raise ShuttingDown(task_id)
        self._waiting_tasks[task_id] = waiting
        self.turn_grants[task_id] = call.grant
        self.turn_deadlines[task_id] = call.deadline
        return waiting

    def end_turn(self, task_id: str) -> Exception | None:
        """Ends what `begin_turn` began. Returns the error for which the turn was cancelled, if it was."""
        is_abandoned, was_waiting = task_id in self._abandoned_turns, self._waiting_tasks.pop(task_id, None) is not None
        self.turn_grants.pop(task_id, None)
        self.turn_deadlines.pop(task_id, None)
        self._abandoned_turns.discard(task_id)
        if is_abandoned:
            return TurnAbandoned()
        return None if was_waiting else ShuttingDown(task_id)

    @property
    def running_turns(self) -> Collection["asyncio.Task[Any]"]:
        """The asyncio tasks of the turns that are at an agent."""
        return self._waiting_tasks.values()

    def abandon_turn(self, task_id: str) -> None:
        """Cancels the turn of a task that has ended."""
        waiting = self._waiting_tasks.pop(task_id, None)
        if waiting is not None:
            self._abandoned_turns.add(task_id)
            waiting.cancel()

    def hand_over(self) -> int:
        """Cancels all turns and calls, now and later, without ending a task. Returns how many turns and calls were cancelled.

        The tasks stay with this process until it departs (gateway/storage/processes.py); then another process takes them over.
        """
        self._handing_over = True
        turns, calls = list(self._waiting_tasks), list(self.call_grants)
        for task_id in turns:
            self._waiting_tasks.pop(task_id).cancel()
        for waiting in calls:
            self.abandon_call(waiting, ShuttingDown(called=True))
        return len(turns) + len(calls)

    def begin_call(self, grant: Grant) -> "asyncio.Task[Any]":
        """Registers the current asyncio task as a call of a server, which `abandon_call` can cancel."""
        waiting = asyncio.current_task()
        if waiting is None:
            raise RuntimeError("a call is made in a task")
        self.call_grants[waiting] = grant
        return waiting

    def raise_if_abandoned(self, waiting: "asyncio.Task[Any]") -> None:
        """Raises the error for which the call was abandoned, if it was. Called after a CancelledError."""
        if (error := self._abandoned_calls.get(waiting)) is not None:
            waiting.uncancel()
            raise error

    def end_call(self, waiting: "asyncio.Task[Any]") -> None:
        self.call_grants.pop(waiting, None)
        if self._abandoned_calls:
            self._abandoned_calls.pop(waiting, None)

    def abandon_call(self, waiting: "asyncio.Task[Any]", error: Exception) -> None:
        """Cancels a call of a server, which then raises `error`."""
        if self.call_grants.pop(waiting, None) is not None:
            self._abandoned_calls[waiting] = error
            waiting.cancel()


def _increment(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1


def _decrement(counts: dict[str, int], key: str) -> None:
    """Counts one less, and forgets a key without any."""
    left = counts.get(key, 0) - 1
    if left:
        counts[key] = left
    else:
        counts.pop(key, None)
