"""Task transitions: the entries and the row that result from each event of an agent."""

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from adapters.contract import (
    BAD_ANSWER,
    AnswerRefused,
    Ask,
    Canceled,
    Done,
    Event,
    Failed,
    Progress,
    PromptKind,
    RefLearned,
    RejectedArtifact,
    Replied,
    Suspended,
)
from adapters.task import Message, Part, Role, Task, TaskState, TaskStatus, encode
from gateway.tasks.contracts.prompts import message_with_prompts, with_prompts, with_unanswered_prompts
from gateway.tasks.events.entries import WITHHELD, TaskEvent, TaskRow, reply_event, status_event, to_rfc3339
from gateway.tasks.log import TaskLog
from gateway.tasks.turns.journal import TurnState

ERROR_METADATA = "urn:interlock:a2a:error"  # in the metadata of a message about a failure
RETRY_AFTER = "retryAfter"  # member of ERROR_METADATA, in seconds
WITHHELD_METADATA = "urn:interlock:a2a:withheld"  # beside ERROR_METADATA: the operator's log has more
STACK_TRACE_TEXT = "The agent sent a stack trace, which only operators can see"
UNEXPLAINED_AUTH_TEXT = "The agent waits for an authorization and did not say which."  # A2A 1.0 s7.6.1 demands an explanation


class TaskTransitions:
    """Builds entries and rows; writes nothing."""

    def __init__(self, tasks: TaskLog, new_id: Callable[[str], str], now: Callable[[], int]) -> None:
        self._tasks = tasks
        self._new_id = new_id
        self._now = now

    def resumed_events(self, previous: TaskRow, row: TaskRow, message: Message) -> TurnState:
        """Returns a paused task with the answer and the status WORKING."""
        at = self._now()
        answered = _with_events(replace(row, last_seq=previous.last_seq), _message_event(previous, message, at))
        return join_events(answered, self.with_status(answered.row, TaskState.WORKING, None, at))

    def paused_events(self, previous: TaskRow | None, row: TaskRow, message: Message, text: str) -> TurnState:
        """Returns a new or known task with the message and the status AUTH_REQUIRED, before the agent gets the message.

        `text` tells the caller what the task waits for.
        """
        at = self._now()
        if previous is None:
            opened = TurnState(*self._tasks.opening_events(row, message))
        else:
            opened = _with_events(replace(row, last_seq=previous.last_seq), _message_event(previous, message, at))
        return join_events(opened, self.with_status(opened.row, TaskState.AUTH_REQUIRED, self.gateway_message(row, text), at))

    def resumed_state(self, previous: TaskRow, row: TaskRow) -> TurnState:
        """Returns a paused task with the status WORKING."""
        return self.with_status(replace(row, last_seq=previous.last_seq), TaskState.WORKING, None, self._now())

    def apply_event(self, row: TaskRow, event: Event, at: int | None = None) -> TurnState:
        """Returns the task after one more event, with the entry for the event, if it makes one. `at`: when it arrived; None: now."""
        at = self._now() if at is None else at
        if isinstance(event, RefLearned):
            ref = with_unanswered_prompts(row.vendor_ref, event.ref) if row.has_open_prompts else event.ref
            vendor_ref = msgspec.json.encode(ref).decode()
            return TurnState(replace(row, vendor_ref=vendor_ref, awaited_connection_id=event.awaited_connection_id, updated=at), ())
        if isinstance(event, Replied):
            message = _with_gateway_ids(row, event.message)  # in the status, since a stream of a task has no messages of their own (s3.1.2)
            status = TaskStatus(TaskState.COMPLETED, message, to_rfc3339(at))
            completed = replace(row, state=TaskState.COMPLETED, runner="")
            return _with_events(completed, reply_event(row.last_seq + 1, at, status))
        if isinstance(event, RejectedArtifact):
            return _with_events(row, TaskEvent(row.last_seq + 1, at, WITHHELD, encode(event.artifact).decode()))
        if isinstance(event, Ask):
            row = replace(row, vendor_ref=with_prompts(row.vendor_ref, event.prompts))
        metadata = None if isinstance(event, AnswerRefused) else event.metadata
        moved = self.with_status(row, *self._state_and_message(row, event), at, metadata)
        return replace(moved, row=replace(moved.row, runner="")) if isinstance(event, Suspended) else moved

    def waiting_state(self, row: TaskRow, prior_status: TaskStatus | None, refusal: AnswerRefused) -> TurnState:
        """Returns the task after a refused answer: it waits as before, with the reason.

        `prior_status` is the status with which the task asked.
        """
        state = prior_status.state if prior_status is not None else TaskState.INPUT_REQUIRED
        metadata = _failure_metadata(refusal.kind or BAD_ANSWER, refusal.retryable)
        why = Part(text=refusal.reason, metadata=metadata)
        prior_parts = prior_status.message.parts if prior_status is not None and isinstance(prior_status.message, Message) else ()
        parts = (why, *(part for part in prior_parts if part.metadata is UNSET or ERROR_METADATA not in part.metadata))
        message = Message(self._new_id("m"), Role.AGENT, parts, row.context_id, row.id, metadata)
        return self.with_status(row, state, message, self._now())

    def _state_and_message(self, row: TaskRow, event: Event) -> tuple[TaskState, Message | None]:
        match event:
            case Done(message):
                state = TaskState.COMPLETED
            case Progress(message, detail=detail):
                state = TaskState.WORKING
                message = message or (self.gateway_message(row, STACK_TRACE_TEXT, has_withheld_detail=True) if detail else None)
            case Ask(message, auth, prompts):
                auth = auth or (bool(prompts) and all(each.kind is PromptKind.AUTH for each in prompts))
                state = TaskState.AUTH_REQUIRED if auth else TaskState.INPUT_REQUIRED
                message = message_with_prompts(message, prompts, self._new_id("m")) if prompts else message
                message = message or (self.gateway_message(row, UNEXPLAINED_AUTH_TEXT) if auth else None)
            case Suspended(message):
                state = TaskState.WORKING
            case Canceled(message):
                state = TaskState.CANCELED
            case Failed(reason, message, rejected, detail, kind, retryable, retry_after):
                state = TaskState.REJECTED if rejected else TaskState.FAILED
                failure = _failure_metadata(kind, retryable, retry_after)
                message = message or self.gateway_message(row, reason, failure, has_withheld_detail=bool(detail))
            case _:
                raise TypeError(f"not an event that moves a task: {type(event).__name__}")
        return state, _with_gateway_ids(row, message) if message else None

    def gateway_message(
        self, row: TaskRow, text: str, failure: Mapping[str, Any] | None = None, has_withheld_detail: bool = False
    ) -> Message:
        """Returns a message of the gateway in a task. `failure` is its metadata.

        `has_withheld_detail` says that the log has more about it, under the task's id.
        """
        metadata = dict(failure or {}) | ({WITHHELD_METADATA: {"correlationId": row.id}} if has_withheld_detail else {})
        return Message(self._new_id("m"), Role.AGENT, (Part(text=text),), row.context_id, row.id, metadata or UNSET)

    def with_status(
        self, row: TaskRow, state: TaskState, message: Message | None, at: int, metadata: Mapping[str, Any] | None = None
    ) -> TurnState:
        seq = row.last_seq + 1
        event = status_event(seq, at, TaskStatus(state, message or UNSET, to_rfc3339(at)), metadata)
        runner = self._tasks.runner if state is TaskState.WORKING else ""
        return TurnState(replace(row, state=state, runner=runner, last_seq=seq, updated=at), (event,))


def join_events(earlier: TurnState, later: TurnState) -> TurnState:
    return replace(later, events=(*earlier.events, *later.events))


def _message_event(row: TaskRow, message: Message, at: int) -> TaskEvent:
    return TaskEvent(row.last_seq + 1, at, "message", encode(message).decode())


def _failure_metadata(kind: str, retryable: bool, retry_after: float | None = None) -> dict[str, Any]:
    """Returns the metadata of a failure message.

    `retryable` says that the same turn may succeed later, after `retry_after` seconds.
    """
    more = {"retryable": True} if retryable else {}
    return {ERROR_METADATA: {"reason": kind, **more, **({RETRY_AFTER: ceil(retry_after)} if retry_after else {})}} if kind else {}


def retry_after_of(task: Task) -> int:
    """Returns the seconds after which the agent that failed the task may be asked again, or 0."""
    message = task.status.message
    if task.status.state is not TaskState.FAILED or not isinstance(message, Message) or message.metadata is UNSET:
        return 0
    error = message.metadata.get(ERROR_METADATA)
    after = error.get(RETRY_AFTER, 0) if isinstance(error, dict) else 0
    return after if isinstance(after, int) else 0


def _with_gateway_ids(row: TaskRow, message: Message) -> Message:
    """Returns an agent's message with the gateway's ids in place of the agent's."""
    return replace(message, context_id=row.context_id, task_id=row.id, reference_task_ids=())


def _with_events(row: TaskRow, *events: TaskEvent) -> TurnState:
    """Returns the task with these additional events, at least one."""
    return TurnState(replace(row, last_seq=events[-1].seq, updated=events[-1].at), events)
