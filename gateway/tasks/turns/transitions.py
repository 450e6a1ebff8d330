"""What each event makes of a task: its next entries, and where it stands with them."""

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from adapters.contract import BAD_ANSWER, AnswerRefused, Ask, Canceled, Done, Event, Failed, Progress, PromptKind, Ref, Replied, Withheld
from adapters.task import Message, Part, Role, Task, TaskState, TaskStatus, encode
from gateway.tasks.contracts.prompts import asking, keeping, still_open
from gateway.tasks.events.entries import WITHHELD, TaskEvent, TaskRow, reply_body, rfc3339, status_body
from gateway.tasks.log import TaskLog
from gateway.tasks.turns.journal import Turned

ERROR = "urn:interlock:a2a:error"  # in the metadata of a message that tells of a failure
RETRY_AFTER = "retryAfter"  # seconds, a member of it
WORDS_WITHHELD = "urn:interlock:a2a:withheld"  # beside it: operators find in the log what else is known
TRACED = "The agent told of a stack trace; it is for operators alone"
UNEXPLAINED = "The agent waits for an authorization, and did not say which."  # A2A 1.0 s7.6.1: somebody has to explain


class Steps:
    """Constructs entries. Nothing is kept here."""

    def __init__(self, tasks: TaskLog, new_id: Callable[[str], str], now: Callable[[], int]) -> None:
        self._tasks = tasks
        self._new_id = new_id
        self._now = now

    def resumed(self, old: TaskRow, new: TaskRow, message: Message) -> Turned:
        """A task that waited and goes on: the answer, and that it works again."""
        at = self._now()
        answered = _with(replace(new, last_seq=old.last_seq), _message_event(old, message, at))
        return joined(answered, self.status(answered.row, TaskState.WORKING, None, at))

    def parked(self, old: TaskRow | None, new: TaskRow, message: Message, text: str) -> Turned:
        """A task, new or not, that waits for people before anybody is told of the message; `text` says for what."""
        at = self._now()
        if old is None:
            opened = Turned(*self._tasks.opening(new, message))
        else:
            opened = _with(replace(new, last_seq=old.last_seq), _message_event(old, message, at))
        return joined(opened, self.status(opened.row, TaskState.AUTH_REQUIRED, self.says(new, text), at))

    def going_on(self, old: TaskRow, new: TaskRow) -> Turned:
        """A task that waited and works now."""
        return self.status(replace(new, last_seq=old.last_seq), TaskState.WORKING, None, self._now())

    def after(self, row: TaskRow, event: Event) -> Turned:
        """Where one more event brings a task, and the entry that it makes."""
        at = self._now()
        if isinstance(event, Ref):
            ref = msgspec.json.encode(still_open(row.vendor_ref, event.ref)).decode()
            return Turned(replace(row, vendor_ref=ref, updated=at), ())
        if isinstance(event, Withheld):
            return _with(row, TaskEvent(row.last_seq + 1, at, WITHHELD, encode(event.artifact).decode()))
        if isinstance(event, Replied):
            message = _ours(row, event.message)  # in the status, since a stream of a task has no messages of their own (s3.1.2)
            body = reply_body(TaskStatus(TaskState.COMPLETED, message, rfc3339(at)))
            completed = replace(row, state=TaskState.COMPLETED, runner="")
            return _with(completed, TaskEvent(row.last_seq + 1, at, "status", body))
        if isinstance(event, Ask):
            row = replace(row, vendor_ref=keeping(row.vendor_ref, event.prompts))
        noted = None if isinstance(event, AnswerRefused) else event.metadata
        return self.status(row, *self._state(row, event), at, noted)

    def waiting_again(self, row: TaskRow, asked: TaskStatus | None, refused: AnswerRefused) -> Turned:
        """Where a refused answer leaves a task: it waits as before, and says why. `asked`: its status when it asked."""
        state = asked.state if asked is not None else TaskState.INPUT_REQUIRED
        metadata = _of_failure(refused.kind or BAD_ANSWER, refused.retryable)
        why = Part(text=refused.reason, metadata=metadata)
        before = asked.message.parts if asked is not None and isinstance(asked.message, Message) else ()
        parts = (why, *(part for part in before if part.metadata is UNSET or ERROR not in part.metadata))
        message = Message(self._new_id("m"), Role.AGENT, parts, row.context_id, row.id, metadata)
        return self.status(row, state, message, self._now())

    def _state(self, row: TaskRow, event: Event) -> tuple[TaskState, Message | None]:
        match event:
            case Progress(message, detail=detail):
                state = TaskState.WORKING
                message = message or (self.says(row, TRACED, withheld=True) if detail else None)
            case Ask(message, auth, prompts):
                auth = auth or (bool(prompts) and all(each.kind is PromptKind.AUTH for each in prompts))
                state = TaskState.AUTH_REQUIRED if auth else TaskState.INPUT_REQUIRED
                message = asking(message, prompts, self._new_id("m")) if prompts else message
                message = message or (self.says(row, UNEXPLAINED) if auth else None)
            case Done(message):
                state = TaskState.COMPLETED
            case Canceled(message):
                state = TaskState.CANCELED
            case Failed(reason, message, rejected, detail, kind, retryable, retry_after):
                state = TaskState.REJECTED if rejected else TaskState.FAILED
                failure = _of_failure(kind, retryable, retry_after)
                message = message or self.says(row, reason, failure, withheld=bool(detail))
            case _:
                raise TypeError(f"not an event that moves a task: {type(event).__name__}")
        return state, _ours(row, message) if message else None

    def says(self, row: TaskRow, text: str, failure: Mapping[str, Any] | None = None, withheld: bool = False) -> Message:
        """A message of the gateway itself in a task. `failure`: metadata. `withheld`: the log has more of it, under the task's id."""
        metadata = dict(failure or {}) | ({WORDS_WITHHELD: {"correlationId": row.id}} if withheld else {})
        return Message(self._new_id("m"), Role.AGENT, (Part(text=text),), row.context_id, row.id, metadata or UNSET)

    def status(self, row: TaskRow, state: TaskState, message: Message | None, at: int, noted: Mapping[str, Any] | None = None) -> Turned:
        status = TaskStatus(state=state, timestamp=rfc3339(at), **({"message": message} if message else {}))
        runner = self._tasks.runner if state is TaskState.WORKING else ""
        event = TaskEvent(row.last_seq + 1, at, "status", status_body(status, noted))
        return _with(replace(row, state=state, runner=runner), event)


def joined(before: Turned, after: Turned) -> Turned:
    return replace(after, events=(*before.events, *after.events))


def _message_event(row: TaskRow, message: Message, at: int) -> TaskEvent:
    return TaskEvent(row.last_seq + 1, at, "message", encode(message).decode())


def _of_failure(kind: str, retryable: bool, retry_after: float | None = None) -> dict[str, Any]:
    """The metadata of a message about a failure. `retryable`: the same turn may work later, after `retry_after` seconds."""
    more = {"retryable": True} if retryable else {}
    return {ERROR: {"reason": kind, **more, **({RETRY_AFTER: ceil(retry_after)} if retry_after else {})}} if kind else {}


def retry_after_of(task: Task) -> int:
    """The seconds after which the agent that failed the task wants to be asked again, or 0."""
    message = task.status.message
    if task.status.state is not TaskState.FAILED or not isinstance(message, Message) or message.metadata is UNSET:
        return 0
    error = message.metadata.get(ERROR)
    after = error.get(RETRY_AFTER, 0) if isinstance(error, dict) else 0
    return after if isinstance(after, int) else 0


def _ours(row: TaskRow, message: Message) -> Message:
    """An agent's message under the gateway's ids; the agent's own are nobody else's business."""
    return replace(message, context_id=row.context_id, task_id=row.id, reference_task_ids=())


def _with(row: TaskRow, *events: TaskEvent) -> Turned:
    """The task with more events, of which there is at least one."""
    return Turned(replace(row, last_seq=events[-1].seq, updated=events[-1].at), events)
