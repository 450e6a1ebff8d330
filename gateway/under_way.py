"""The turns of this process that are under way, and how many tasks each task has caused."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
FANOUT_MAX = 64  # tasks that one task may have under way at once


class Abandoned(Exception):
    """The turn was given up, since its task has ended by another hand."""


class TooManyTasks(Exception):
    """One task has caused more tasks than may be under way at once."""


class UnderWay:
    """The turns of this process, from before their first commit to after their last, and how many each task has caused."""

    def __init__(self) -> None:
        self._tasks: Counter[str] = Counter()
        self._caused: Counter[str] = Counter()
        self._waiting: dict[str, asyncio.Task[Any]] = {}
        self._abandoned: set[str] = set()

    def enter(self, task_id: str, parent: str) -> None:
        """Raises TooManyTasks. `parent` is empty for what no task has caused."""
        if parent and self._caused[parent] >= FANOUT_MAX:
            raise TooManyTasks
        self._tasks[task_id] += 1
        self._caused[parent] += 1

    def leave(self, task_id: str, parent: str) -> None:
        for counter, key in ((self._tasks, task_id), (self._caused, parent)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._tasks

    async def run(self, task_id: str, turn: Coroutine[Any, Any, T]) -> T:
        """Runs a turn, in the task that waits for it, which may be told meanwhile to give up on it. Raises Abandoned."""
        waiting = asyncio.current_task()
        if waiting is None:
            raise RuntimeError("a turn runs in a task")
        self._waiting[task_id] = waiting
        try:
            return await turn
        except asyncio.CancelledError:
            if task_id not in self._abandoned:
                raise
            waiting.uncancel()
            raise Abandoned from None
        finally:
            self._waiting.pop(task_id, None)
            self._abandoned.discard(task_id)

    def abandon(self, task_id: str) -> None:
        """Stops waiting for the agent of a task that has ended."""
        waiting = self._waiting.pop(task_id, None)
        if waiting is not None:
            self._abandoned.add(task_id)
            waiting.cancel()
