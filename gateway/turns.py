"""One turn of an agent: its events become entries of the task's log, and exactly one ending ends it."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from adapters.contract import Adapter, ArtifactPiece, Ask, Call, Canceled, Done, Event, Failed, Progress, Ref, Replied, Turn
from adapters.task import Message, Part, Role, TaskState, TaskStatus, encode
from gateway.database import Batch, Database, NotKept
from gateway.tasks import TaskEnded, TaskEvent, TaskLog, TaskRow, artifact_body, rfc3339
from policies.audit import Audit
from policies.grants import Grants

log = structlog.get_logger()
OUTCOMES = {
    TaskState.COMPLETED: "ok",
    TaskState.INPUT_REQUIRED: "asks",
    TaskState.AUTH_REQUIRED: "asks",
    TaskState.CANCELED: "canceled",
    TaskState.REJECTED: "rejected",
}


@dataclass(frozen=True, slots=True)
class Memory:
    """Where things are kept: in one commit, whatever belongs together."""

    database: Database
    audit: Audit
    grants: Grants
    tasks: TaskLog
    new_id: Callable[[str], str]
    now: Callable[[], int]


class Turned(Struct, frozen=True):
    """How a turn ended: the task, all of its events this process knows of, and the agent's own Message where it kept no task."""

    row: TaskRow
    events: tuple[TaskEvent, ...]
    reply: Message | None = None


class Turns:
    """Runs turns. Entries are kept at each sign of life of a watched turn, and together with the ending of any other."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def run(self, adapter: Adapter, turn: Turn, call: Call, opened: Turned) -> Turned:
        """Runs the agent until it ends its turn. Raises NotKept when the ending could not be kept."""
        started = self._memory.now()
        kept = progressing = opened
        async for event in adapter.run(turn, call):
            progressing = self._noted(progressing, event)
            ending = not isinstance(event, Ref | Progress | ArtifactPiece)
            watched = turn.stream and not isinstance(event, Ref)
            if ending or watched or isinstance(event, Progress):
                kept = progressing = await self._keep(kept, progressing, call, started if ending else None)
            if ending:
                if isinstance(event, Failed) and event.detail:
                    log.warning("agent_failed", agent=opened.row.agent, task_id=opened.row.id, detail=event.detail)
                return progressing
        return await self.end(kept, call, Failed("The agent ended its turn without an outcome."))

    def resumed(self, old: TaskRow, new: TaskRow, message: Message) -> Turned:
        """A task that waited and goes on: the answer, and that it works again."""
        at = self._memory.now()
        row = replace(new, last_seq=old.last_seq)
        turned = _with(Turned(row, ()), row, TaskEvent(row.last_seq + 1, at, "message", encode(message).decode()))
        return self._status(turned, TaskState.WORKING, None, at)

    async def end(self, turned: Turned, call: Call | None, event: Event) -> Turned:
        """Ends a task by the gateway's own hand."""
        return await self._keep(turned, self._noted(turned, event), call, self._memory.now())

    async def _keep(self, old: Turned, new: Turned, call: Call | None, started: int | None) -> Turned:
        """Appends what is new; with `started` also the outcome, and the end of the grant when the task is over."""
        memory, row = self._memory, new.row
        fresh = new.events[len(old.events) :]

        def work(batch: Batch) -> None:
            memory.tasks.advance(batch, old.row, row, fresh)
            if started is not None:
                memory.audit.append(batch, _outcome(row, memory.now() - started))
            if row.ended:
                memory.grants.end(batch, row.tenant, row.grant_id, row.updated)

        try:
            await memory.database.write(work)
        except TaskEnded:
            return await self._overtaken(new)
        if row.ended:
            memory.grants.forget(row.tenant, row.grant_id)
        memory.tasks.moved(row)
        return new

    async def _overtaken(self, new: Turned) -> Turned:
        """Somebody else moved the task on, e.g. by cancelling it: what they kept is what happened."""
        record = await self._memory.tasks.record(new.row.tenant, new.row.owner, new.row.id)
        if record.row.ended:
            return Turned(record.row, record.events)
        raise NotKept("the task was moved on by another process")

    def _noted(self, turned: Turned, event: Event) -> Turned:
        """The turn with one more event in it; nothing is kept yet."""
        row, at = turned.row, self._memory.now()
        if isinstance(event, Ref):
            ref = msgspec.json.encode(event.ref).decode()
            return Turned(replace(row, vendor_ref=ref, updated=at), turned.events)
        if isinstance(event, ArtifactPiece):
            body = artifact_body(event.artifact, event.append, event.last_chunk)
            return _with(turned, row, TaskEvent(row.last_seq + 1, at, "artifact", body))
        if isinstance(event, Replied):
            message = self._ours(row, event.message)
            turned = _with(turned, row, TaskEvent(row.last_seq + 1, at, "message", encode(message).decode()))
            return replace(self._status(turned, TaskState.COMPLETED, None, at), reply=message)
        return self._status(turned, *self._state(row, event), at)

    def _state(self, row: TaskRow, event: Event) -> tuple[TaskState, Message | None]:
        match event:
            case Progress(message):
                state = TaskState.WORKING
            case Ask(message, auth):
                state = TaskState.AUTH_REQUIRED if auth else TaskState.INPUT_REQUIRED
            case Done(message):
                state = TaskState.COMPLETED
            case Canceled(message):
                state = TaskState.CANCELED
            case Failed(reason, message, rejected):
                state = TaskState.REJECTED if rejected else TaskState.FAILED
                message = message or self.says(row, reason)
            case _:
                raise TypeError(f"not an event that moves a task: {type(event).__name__}")
        return state, self._ours(row, message) if message else None

    def says(self, row: TaskRow, text: str) -> Message:
        """The gateway's own words in a task."""
        return Message(
            message_id=self._memory.new_id("m"), role=Role.AGENT, parts=(Part(text=text),), context_id=row.context_id, task_id=row.id
        )

    def _ours(self, row: TaskRow, message: Message) -> Message:
        """An agent's message under the gateway's ids; the agent's own are nobody else's business."""
        return msgspec.structs.replace(message, context_id=row.context_id, task_id=row.id, reference_task_ids=())

    def _status(self, turned: Turned, state: TaskState, message: Message | None, at: int) -> Turned:
        status = TaskStatus(state=state, timestamp=rfc3339(at), **({"message": message} if message else {}))
        runner = self._memory.tasks.runner if state is TaskState.WORKING else ""
        event = TaskEvent(turned.row.last_seq + 1, at, "status", encode(status).decode())
        row = replace(turned.row, state=state, runner=runner, last_seq=event.seq, updated=at)
        return Turned(row, (*turned.events, event), turned.reply)


def _with(turned: Turned, row: TaskRow, event: TaskEvent) -> Turned:
    return Turned(replace(row, last_seq=event.seq, updated=event.at), (*turned.events, event), turned.reply)


def _outcome(row: TaskRow, duration_us: int) -> dict[str, object]:
    return {
        "kind": "outcome",
        "tenant": row.tenant,
        "decision_id": row.decision_id,
        "txn": row.txn,
        "task_id": row.id,
        "outcome": OUTCOMES.get(row.state, "failed"),
        "state": row.state.value,
        "duration_us": duration_us,
    }
