"""The gRPC calls that a process handles now, and their end when the process shuts down."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gateway.tasks.log import TaskLeft
from gateway.tasks.turns.in_flight import ShuttingDown


@dataclass(slots=True, eq=False)
class OpenCall:
    """A call in flight. A stream sets `task_id` to the A2A task whose events it sends."""

    running: asyncio.Task[Any]
    task_id: str = ""
    is_ended: bool = False


class OpenCalls:
    """The calls in flight. `end_all` ends those that last too long."""

    def __init__(self) -> None:
        self._calls: set[OpenCall] = set()

    @contextmanager
    def enter(self) -> Iterator[OpenCall]:
        """Registers the current asyncio task as a call.

        Raises ShuttingDown in the block when `end_all` ends the call, and for a stream whose task this process has left.
        """
        running = asyncio.current_task()
        if running is None:
            raise RuntimeError("a call must run in a task")
        call = OpenCall(running)
        self._calls.add(call)
        try:
            yield call
        except TaskLeft:
            raise ShuttingDown(call.task_id) from None
        except asyncio.CancelledError:
            if not call.is_ended:
                raise
            running.uncancel()
            raise ShuttingDown(call.task_id) from None
        finally:
            self._calls.discard(call)

    def end_all(self) -> None:
        for call in self._calls:
            call.is_ended = True
            call.running.cancel()
