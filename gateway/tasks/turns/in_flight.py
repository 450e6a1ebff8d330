"""The turns and calls of this process that are under way, and how many tasks each task has caused."""

import asyncio
import math
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from policies.delegation.rulings import Grant

T = TypeVar("T")
CHILD_TASKS_MAX = 64  # tasks that one task may have under way at once


class TurnAbandoned(Exception):
    """The turn was given up, since its task has ended by another hand."""


class TooManyTasks(Exception):
    """One task has caused more tasks than may be under way at once."""


class ShuttingDown(Exception):
    """This process of the gateway ends before the request was answered. `task_id`: of a turn that goes on without it."""

    def __init__(self, task_id: str = "", called: bool = False) -> None:
        """`called`: a server was at work."""
        says = "This process of the gateway is shutting down; send the request again."
        if task_id:
            says = f"This process of the gateway is shutting down; ask for the task {task_id} instead of sending the message again."
        elif called:
            says = "This process of the gateway is shutting down while the server is at work; the outcome of the call is not known."
        super().__init__(says)
        self.task_id = task_id


class HeldShare(Protocol):
    """What a turn takes up of a limit (gateway/calls/limits/limits.py)."""

    def free(self) -> None: ...


class GrantedCall(Protocol):
    """adapters.contract.Call."""

    @property
    def grant(self) -> Grant: ...

    @property
    def deadline(self) -> float: ...


class InFlight:
    """The turns of this process, from before their first commit to after their last, and how many each task has caused.

    `turns` and `calls` tell which of them are with an agent or a server now, and by whose leave.
    """

    def __init__(self) -> None:
        self._turns_per_task: Counter[str] = Counter()
        self._children_per_task: Counter[str] = Counter()
        self._waiting_tasks: dict[str, asyncio.Task[Any]] = {}
        self._abandoned_turns: set[str] = set()
        self._handing_over = False
        self._shares: dict[str, list[Sequence[HeldShare]]] = {}
        self._abandoned_calls: dict[asyncio.Task[Any], Exception] = {}
        self.turn_grants: dict[str, Grant] = {}
        self.turn_deadlines: dict[str, float] = {}  # of the turns, on the event loop's clock
        self.call_grants: dict[asyncio.Task[Any], Grant] = {}

    def add_turn(self, task_id: str, parent_id: str) -> None:
        """Raises TooManyTasks. `parent` is empty for what no task has caused."""
        if parent_id and self._children_per_task[parent_id] >= CHILD_TASKS_MAX:
            raise TooManyTasks
        self._turns_per_task[task_id] += 1
        self._children_per_task[parent_id] += 1

    def hold_shares(self, task_id: str, shares: Sequence[HeldShare]) -> None:
        """What is free again when the last turn of a task that entered has left."""
        self._shares.setdefault(task_id, []).append(shares)

    def remove_turn(self, task_id: str, parent_id: str) -> None:
        for counter, key in ((self._turns_per_task, task_id), (self._children_per_task, parent_id)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]
        if task_id not in self._turns_per_task:
            for shares in self._shares.pop(task_id, ()):
                for share in shares:
                    share.free()

    def deadline_of(self, task_id: str) -> float:
        """When the turn of a task is over at the latest; of one that is not under way here, nobody knows."""
        return self.turn_deadlines.get(task_id, math.inf) if task_id else math.inf

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._turns_per_task

    async def run(self, task_id: str, turn: Coroutine[Any, Any, T], call: GrantedCall) -> T:
        """Runs a turn, in the task that waits for it, which may be told meanwhile to give up on it. Raises Abandoned and ShuttingDown."""
        waiting = asyncio.current_task()
        if waiting is None:
            raise RuntimeError("a turn runs in a task")
        if self._handing_over:
            turn.close()
            raise ShuttingDown(task_id)
        self._waiting_tasks[task_id] = waiting
        self.turn_grants[task_id] = call.grant
        self.turn_deadlines[task_id] = call.deadline
        try:
            return await turn
        except asyncio.CancelledError:
            if task_id in self._abandoned_turns:
                waiting.uncancel()
                raise TurnAbandoned from None
            if task_id in self._waiting_tasks:
                raise
            waiting.uncancel()
            raise ShuttingDown(task_id) from None
        finally:
            self._waiting_tasks.pop(task_id, None)
            self.turn_grants.pop(task_id, None)
            self.turn_deadlines.pop(task_id, None)
            self._abandoned_turns.discard(task_id)

    def abandon_turn(self, task_id: str) -> None:
        """Stops waiting for the agent of a task that has ended."""
        waiting = self._waiting_tasks.pop(task_id, None)
        if waiting is not None:
            self._abandoned_turns.add(task_id)
            waiting.cancel()

    def hand_over(self) -> int:
        """Stops waiting for all agents and servers, now and from now on, and ends no task; returns how many turns and calls those were.

        Tasks stay with this process until it leaves (gateway/storage/processes.py); then another one takes them over.
        """
        self._handing_over = True
        turns, calls = list(self._waiting_tasks), list(self.call_grants)
        for task_id in turns:
            self._waiting_tasks.pop(task_id).cancel()
        for waiting in calls:
            self.abandon_call(waiting, ShuttingDown(called=True))
        return len(turns) + len(calls)

    def begin_call(self, grant: Grant) -> "asyncio.Task[Any]":
        """A server is asked from now on, in the task that waits for it, which may be told meanwhile to give up on it."""
        waiting = asyncio.current_task()
        if waiting is None:
            raise RuntimeError("a call is made in a task")
        self.call_grants[waiting] = grant
        return waiting

    def raise_if_abandoned(self, waiting: "asyncio.Task[Any]") -> None:
        """After a CancelledError: raises what the call was given up for, if it was."""
        if (error := self._abandoned_calls.get(waiting)) is not None:
            waiting.uncancel()
            raise error

    def end_call(self, waiting: "asyncio.Task[Any]") -> None:
        self.call_grants.pop(waiting, None)
        if self._abandoned_calls:
            self._abandoned_calls.pop(waiting, None)

    def abandon_call(self, waiting: "asyncio.Task[Any]", error: Exception) -> None:
        """Stops waiting for the server of a call."""
        if self.call_grants.pop(waiting, None) is not None:
            self._abandoned_calls[waiting] = error
            waiting.cancel()
