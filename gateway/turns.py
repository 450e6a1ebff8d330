"""One turn of an agent: its events become entries of the task's log, and exactly one ending ends it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import msgspec
import structlog
from msgspec import UNSET, Struct
from msgspec.structs import replace

from adapters.contract import (
    ENDINGS,
    Adapter,
    ArtifactPiece,
    Ask,
    Call,
    Canceled,
    Done,
    Event,
    Failed,
    InvalidAnswer,
    Progress,
    PromptKind,
    Ref,
    Replied,
    Turn,
    UpstreamFault,
    Withheld,
)
from adapters.task import Message, Part, Role, TaskState, TaskStatus, encode
from gateway.database import Batch, Database, NotKept, NotRead
from gateway.late import STOP, TURN, Late
from gateway.prompts import asking, keeping
from gateway.showing import Showing
from gateway.tasks import WITHHELD, TaskEnded, TaskEvent, TaskLog, TaskRecord, TaskRow, artifact_body, rfc3339, status_body
from policies.audit import Audit
from policies.grants import Grants

EVENTS_MAX = 2000  # of one turn
SIZE_MAX = 32 << 20  # characters of one turn
BROKEN = InvalidAnswer.kind
OURS = "GATEWAY"  # what failed is the gateway, not the agent
ERROR = "urn:interlock:a2a:error"  # in the metadata of a message that tells of a failure
WORDS_WITHHELD = "urn:interlock:a2a:withheld"  # beside it: operators find in the log what else is known
REF_SECONDS = 0.05  # of silence after an agent's first word, before it is kept alone
TRACED = "The agent told of a stack trace; it is for operators alone"
UNEXPLAINED = "The agent waits for an authorization, and did not say which."  # A2A 1.0 s7.6.1: somebody has to explain
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


class EndingNotKept(NotKept):
    """The agent's turn is over, but its ending is not kept yet; the gateway goes on trying. `task_id` names the task to ask for."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"The agent's answer could not be kept yet; ask for the task {task_id} later.")
        self.task_id = task_id


class Turns:
    """Runs turns. Entries are kept at each sign of life of a watched turn, and together with the ending of any other.

    A turn does not wait for its entries: what comes during one commit goes along with the next. While the database is away it goes on
    too, and what could not be kept (nor shown) is kept with the next entry.
    """

    def __init__(self, memory: Memory, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._memory = memory
        self._late = Late(pause)

    async def run(self, adapter: Adapter, turn: Turn, call: Call, opened: Turned) -> Turned:
        """Runs the agent until it ends its turn. Raises EndingNotKept."""
        started = self._memory.now()
        progressing = opened
        showing = Showing(opened, self._show)
        silence, room = _Silence(partial(_post_ref, self._memory)), _Room(opened)
        try:
            async with aclosing(cast("AsyncGenerator[Event, None]", adapter.run(turn, call))) as events:
                async for event in events:
                    progressing = self._noted(progressing, event)
                    if room.is_full(progressing):
                        event = Failed("The agent's turn is longer than the gateway keeps of one.", kind=BROKEN)
                        progressing = self._noted(await showing.settled(), event)
                    if isinstance(event, ENDINGS):
                        break
                    silence.heard(event, progressing.row)
                    _log(opened.row, event)
                    if _is_shown(turn, event):
                        showing.show(progressing)
                else:
                    event = Failed("The agent ended its turn without an outcome.", kind=BROKEN)
                    progressing = self._noted(progressing, event)
        except asyncio.CancelledError:
            if not showing.overtaken():
                raise
        except UpstreamFault as fault:
            event = Failed(fault.public, detail=fault.detail, kind=fault.kind)
            progressing = self._noted(progressing, event)
        except Exception:  # a task's root: whatever went wrong, the task must end
            log.exception("turn_broke", agent=opened.row.agent, task_id=opened.row.id)
            event = Failed("The gateway could not go on with the agent's answer.", kind=OURS)
            progressing = self._noted(progressing, event)
        silence.end()
        kept = await showing.settled()
        return await self._ended(kept, progressing, event, started) if showing.over is None else showing.over

    def resumed(self, old: TaskRow, new: TaskRow, message: Message) -> Turned:
        """A task that waited and goes on: the answer, and that it works again."""
        at = self._memory.now()
        row = replace(new, last_seq=old.last_seq)
        turned = _with(Turned(row, ()), row, TaskEvent(row.last_seq + 1, at, "message", encode(message).decode()))
        return self._status(turned, TaskState.WORKING, None, at)

    def parked(self, old: TaskRow | None, new: TaskRow, message: Message, text: str) -> Turned:
        """A task, new or not, that waits for people before anybody is told of the message; `text` says for what."""
        at = self._memory.now()
        if old is None:
            opened = Turned(*self._memory.tasks.opening(new, message))
        else:
            row = replace(new, last_seq=old.last_seq)
            opened = _with(Turned(row, ()), row, TaskEvent(row.last_seq + 1, at, "message", encode(message).decode()))
        return self._status(opened, TaskState.AUTH_REQUIRED, self.says(new, text), at)

    def going_on(self, old: TaskRow, new: TaskRow) -> Turned:
        """A task that waited and works now."""
        return self._status(Turned(replace(new, last_seq=old.last_seq), ()), TaskState.WORKING, None, self._memory.now())

    async def end(self, turned: Turned, event: Event) -> Turned:
        """Ends a task by the gateway's own hand, whatever its turn adds meanwhile. One that has ended stays as it is."""
        while not turned.row.ended:
            new = self._noted(turned, event)
            turned = await self._keep(turned, new, self._memory.now())
            if turned is new:
                break
        return turned

    async def stop(self, turned: Turned, event: Event) -> Turned:
        """As `end`. What can't be kept now is kept later, behind the caller's back. Raises EndingNotKept."""
        try:
            return await self.end(turned, event)
        except (NotKept, NotRead) as error:
            self._late.keep(turned.row.id, STOP, partial(self.end, turned, event))
            raise EndingNotKept(turned.row.id) from error

    async def recover(self, under_way: Container[str]) -> int:
        """Ends tasks that nobody works on: of processes that are no more, and our own that are neither under way nor late."""
        tasks = self._memory.tasks
        ended = 0
        for row in await tasks.orphans():
            record = await tasks.record(row.tenant, row.owner, row.id)
            if record.row.runner != row.runner or row.id in under_way or row.id in self._late:
                continue
            lost = Turned(record.row, record.events)
            new = self._noted(lost, _lost(row.runner == tasks.runner))
            ended += await self._keep(lost, new, self._memory.now()) is new  # one that moved since it was looked at is not lost
        return ended

    async def close(self) -> None:
        """Gives up on endings that are still to be kept: the next start ends their tasks."""
        await self._late.close()

    async def _show(self, kept: Turned, new: Turned) -> Turned:
        """`new` once it is kept, what became of the task when somebody else ended it, or `kept` while the database is away."""
        try:
            return await self._keep(kept, new, None)
        except (NotKept, NotRead) as error:
            log.warning("entry_waits", task_id=new.row.id, error=type(error).__name__)
            return kept

    async def _ended(self, kept: Turned, new: Turned, event: Event, started: int) -> Turned:
        """Keeps an ending. What can't be kept now is kept later, behind the caller's back. Raises EndingNotKept."""
        _log(new.row, event)
        try:
            return await self._keep(kept, new, started)
        except (NotKept, NotRead) as error:
            self._late.keep(new.row.id, TURN, partial(self._keep, kept, new, started))
            raise EndingNotKept(new.row.id) from error

    async def _keep(self, old: Turned, new: Turned, started: int | None) -> Turned:
        """Appends what is new; with `started` also the outcome, and the end of the grant when the task is over.

        Returns `new`, or what became of the task when somebody else moved it on.
        """
        memory, row = self._memory, new.row
        fresh = new.events[len(old.events) :]

        def work(batch: Batch) -> None:
            memory.tasks.advance(batch, old.row, row, fresh)
            if started is not None:
                memory.audit.append(batch, _outcome(row, memory.now() - started))
                if not row.ended:  # it waits, and what its agent begins meanwhile has its own time
                    memory.grants.bind(batch, row.tenant, row.grant_id, row.id)

        try:
            await memory.database.write(work)
        except TaskEnded:
            record = await memory.tasks.record(row.tenant, row.owner, row.id)
            reached = _reached(new, record)
            if reached is None:
                memory.tasks.moved(record.row, record.events)
                return Turned(record.row, record.events)
            if reached.row.last_seq < row.last_seq:
                return await self._keep(reached, new, started)
        if started is not None or row.ended:
            memory.grants.forget(row.tenant, row.grant_id)
        memory.tasks.moved(row, fresh)
        return new

    def _noted(self, turned: Turned, event: Event) -> Turned:
        """The turn with one more event in it; nothing is kept yet."""
        row, at = turned.row, self._memory.now()
        if isinstance(event, Ref):
            ref = msgspec.json.encode(event.ref).decode()
            return Turned(replace(row, vendor_ref=ref, updated=at), turned.events)
        if isinstance(event, ArtifactPiece):
            body = artifact_body(event.artifact, event.append, event.last_chunk)
            return _with(turned, row, TaskEvent(row.last_seq + 1, at, "artifact", body))
        if isinstance(event, Withheld):
            return _with(turned, row, TaskEvent(row.last_seq + 1, at, WITHHELD, encode(event.artifact).decode()))
        if isinstance(event, Replied):
            message = _ours(row, event.message)  # in the status, since a stream of a task has no messages of their own (s3.1.2)
            return replace(self._status(turned, TaskState.COMPLETED, message, at), reply=message)
        if isinstance(event, Ask):
            turned = replace(turned, row=replace(row, vendor_ref=keeping(row.vendor_ref, event.prompts)))
        noted = event.metadata if isinstance(event, Progress | Done) else None
        return self._status(turned, *self._state(row, event), at, noted)

    def _state(self, row: TaskRow, event: Event) -> tuple[TaskState, Message | None]:
        match event:
            case Progress(message, detail=detail):
                state = TaskState.WORKING
                message = message or (self.says(row, TRACED, withheld=True) if detail else None)
            case Ask(message, auth, prompts):
                auth = auth or (bool(prompts) and all(each.kind is PromptKind.AUTH for each in prompts))
                state = TaskState.AUTH_REQUIRED if auth else TaskState.INPUT_REQUIRED
                message = asking(message, prompts, self._memory.new_id("m")) if prompts else message
                message = message or (self.says(row, UNEXPLAINED) if auth else None)
            case Done(message):
                state = TaskState.COMPLETED
            case Canceled(message):
                state = TaskState.CANCELED
            case Failed(reason, message, rejected, detail, kind, retryable):
                state = TaskState.REJECTED if rejected else TaskState.FAILED
                message = message or self.says(row, reason, kind, retryable, withheld=bool(detail))
            case _:
                raise TypeError(f"not an event that moves a task: {type(event).__name__}")
        return state, _ours(row, message) if message else None

    def says(self, row: TaskRow, text: str, kind: str = "", retryable: bool = False, withheld: bool = False) -> Message:
        """The gateway's own words in a task, of a failure of that kind, say. `withheld`: the log has more of it, under the task's id."""
        metadata = _of_failure(kind, retryable) | ({WORDS_WITHHELD: {"correlationId": row.id}} if withheld else {})
        return Message(self._memory.new_id("m"), Role.AGENT, (Part(text=text),), row.context_id, row.id, metadata or UNSET)

    def _status(self, turned: Turned, state: TaskState, message: Message | None, at: int, noted: Mapping[str, Any] | None = None) -> Turned:
        status = TaskStatus(state=state, timestamp=rfc3339(at), **({"message": message} if message else {}))
        runner = self._memory.tasks.runner if state is TaskState.WORKING else ""
        event = TaskEvent(turned.row.last_seq + 1, at, "status", status_body(status, noted))
        row = replace(turned.row, state=state, runner=runner, last_seq=event.seq, updated=at)
        return Turned(row, (*turned.events, event), turned.reply)


class _Room:
    """How much of one turn is kept: so many events, and so many characters of them, since an event alone may have 8 million."""

    def __init__(self, opened: Turned) -> None:
        self._seen = len(opened.events)
        self._size = 0

    def is_full(self, turned: Turned) -> bool:
        for event in turned.events[self._seen :]:
            self._size += len(event.body)
        self._seen = len(turned.events)
        return self._seen > EVENTS_MAX or self._size > SIZE_MAX


def _post_ref(memory: Memory, row: TaskRow) -> None:
    """Keeps the agent's own ids of a task it is silent about, by which it can be told to stop."""
    memory.database.post(lambda batch: memory.tasks.refer(batch, row))


class _Silence:
    """After an agent's first word: what it said is kept, unless something follows soon that is kept anyway."""

    def __init__(self, keep: Callable[[TaskRow], None]) -> None:
        self._keep = keep
        self._timer: asyncio.TimerHandle | None = None

    def heard(self, event: Event, row: TaskRow) -> None:
        if isinstance(event, Ref):
            self.end()
            self._timer = asyncio.get_running_loop().call_later(REF_SECONDS, self._keep, row)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _log(row: TaskRow, event: Event) -> None:
    """What callers do not get to see, for operators."""
    if isinstance(event, Failed):
        log.warning("agent_failed", agent=row.agent, task_id=row.id, problem=event.reason, detail=event.detail)
    elif isinstance(event, Progress) and event.detail:
        log.warning("agent_traced", agent=row.agent, task_id=row.id, detail=event.detail)


def _is_shown(turn: Turn, event: Event) -> bool:
    """Whether it is kept as it comes, and not only with the ending."""
    return isinstance(event, Progress) or (turn.stream and isinstance(event, ArtifactPiece))


def _of_failure(kind: str, retryable: bool) -> dict[str, Any]:
    """Metadata. `retryable`: it may not be there later."""
    return {ERROR: {"reason": kind, **({"retryable": True} if retryable else {})}} if kind else {}


def _ours(row: TaskRow, message: Message) -> Message:
    """An agent's message under the gateway's ids; the agent's own are nobody else's business."""
    return replace(message, context_id=row.context_id, task_id=row.id, reference_task_ids=())


def _with(turned: Turned, row: TaskRow, event: TaskEvent) -> Turned:
    return Turned(replace(row, last_seq=event.seq, updated=event.at), (*turned.events, event), turned.reply)


def _lost(here: bool) -> Failed:
    what = "lost sight of the agent" if here else "stopped while the agent was at work"
    return Failed(f"The gateway {what}; its outcome is not known.", kind=OURS)


def _reached(new: Turned, record: TaskRecord) -> Turned | None:
    """How far `new` is kept already, by a commit that seemed to fail; None when somebody else moved the task on."""
    first = new.events[0].seq
    ours = tuple(event for event in new.events if event.seq <= record.row.last_seq)
    return Turned(record.row, ours) if ours == tuple(event for event in record.events if event.seq >= first) else None


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
