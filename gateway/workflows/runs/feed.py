"""What happens in a run, as it happens: changes of its state, and steps that ended."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from msgspec import Struct

from adapters.task import Message, TaskState, TaskStatus, text_of
from gateway.tasks.log import TaskEvent, TaskLog, TaskRow
from gateway.workflows.runs.journal import CALL, CLAIM, StepRow, read_stored_steps
from gateway.workflows.runs.store import RunKey, RunStore

POLL_SECONDS: Final = 0.5
_decode_status = msgspec.json.Decoder(TaskStatus).decode


class FeedPlace(Struct, frozen=True):
    """How far a reader has come: the last number of the task's log, and that of the run's steps."""

    task: int = 0
    step: int = 0


class StateChange(Struct, frozen=True):
    """A run's new state. `text` is what its message says; `at` is in microseconds since 1970."""

    at: int
    state: TaskState
    text: str


class FeedEntry(Struct, frozen=True):
    """One event, and the place after it."""

    place: FeedPlace
    event: StateChange | StepRow

    @property
    def at(self) -> int:
        """Microseconds since 1970."""
        return self.event.at if isinstance(self.event, StateChange) else self.event.ended


class RunFeed:
    """Reads events of runs. Every process sees the events of all processes."""

    def __init__(self, store: RunStore, task_log: TaskLog) -> None:
        self._store = store
        self._task_log = task_log

    async def read(self, row: TaskRow, after: FeedPlace) -> list[FeedEntry]:
        """The events after a place, in the order of their times."""
        states = [each for each in await self._task_log.read_events(row, after.task) if each.kind == "status"]
        steps = await read_stored_steps(self._store, RunKey(row.tenant, row.id), after.step)
        return _in_order([_state_change(each) for each in states], [step for step in steps if step.kind in (CALL, CLAIM)], after)

    async def follow(self, row: TaskRow, after: FeedPlace) -> AsyncIterator[list[FeedEntry]]:
        """Yields the events after a place, and what happens from then on until the run ends; an empty list where nothing did.

        Ends too when the process drains and works on the run no more, since another process can go on after any place.
        """
        place = after
        while True:
            now = await self._task_log.find(row.tenant, row.owner, row.id)
            found = await self.read(now, place)
            place = found[-1].place if found else place
            yield found
            if now.has_ended or self._task_log.has_left(now):
                return
            await asyncio.sleep(POLL_SECONDS)


def _in_order(states: list[tuple[int, StateChange]], steps: list[StepRow], after: FeedPlace) -> list[FeedEntry]:
    """Merges two lists by their times. Each list keeps its own order, so that a place says how far a reader came in both."""
    found, place = list[FeedEntry](), after
    while states or steps:
        if states and (not steps or states[0][1].at <= steps[0].ended):
            seq, change = states.pop(0)
            place = FeedPlace(seq, place.step)
            found.append(FeedEntry(place, change))
        else:
            step = steps.pop(0)
            place = FeedPlace(place.task, step.seq)
            found.append(FeedEntry(place, step))
    return found


def _state_change(event: TaskEvent) -> tuple[int, StateChange]:
    status = _decode_status(event.body)
    text = text_of(status.message.parts) if isinstance(status.message, Message) else ""
    return event.seq, StateChange(event.at, status.state, text)
