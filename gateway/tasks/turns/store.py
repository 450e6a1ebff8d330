"""One turn of an agent: its events become entries of the task's log, and exactly one ending ends it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import cast

import msgspec
import structlog
from msgspec.structs import replace

from adapters.contract import (
    ENDINGS,
    Adapter,
    AnswerRefused,
    ArtifactPiece,
    Ask,
    Call,
    Event,
    Failed,
    InvalidAnswer,
    Progress,
    Ref,
    Turn,
    UpstreamFault,
)
from adapters.task import INTERRUPTED, TaskState, TaskStatus
from gateway.storage.database import Batch, Database, NotKept, NotRead
from gateway.tasks.contracts.prompts import keeping
from gateway.tasks.events.entries import TaskEvent, TaskRecord, TaskRow
from gateway.tasks.log import TaskEnded, TaskLog
from gateway.tasks.turns.deferred_endings import STOP, TURN, Late
from gateway.tasks.turns.journal import USUAL, Journal, Turned, TurnLimits
from gateway.tasks.turns.progress_writer import Showing
from gateway.tasks.turns.transitions import Steps, joined
from policies.audit.log import Audit
from policies.delegation.grants import Grants

__all__ = ["EndingNotKept", "Memory", "Turned", "Turns"]
BROKEN = InvalidAnswer.kind
OURS = "GATEWAY"  # what failed is the gateway, not the agent
TOO_LONG = "TURN_TOO_LONG"  # the agent did nothing wrong, but the gateway keeps no more of one turn
TOO_LONG_SAYS = "The turn is longer than this gateway keeps of one (limits.turn_events, limits.turn_bytes). All that came before is kept."
REF_SECONDS = 0.05  # of silence after an agent's first word, before it is kept alone
log = structlog.get_logger()
_status = msgspec.json.Decoder(TaskStatus).decode
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
    turn_limits: TurnLimits = USUAL


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
        self.steps = Steps(memory.tasks, memory.new_id, memory.now)
        self._late = Late(pause)

    async def run(self, adapter: Adapter, turn: Turn, call: Call, opened: Turned) -> Turned:
        """Runs the agent until it ends its turn. Raises EndingNotKept."""
        started = self._memory.now()
        journal = Journal(opened, self._memory.turn_limits)
        showing = Showing(partial(self._show, journal), lambda: journal.rest)
        silence = _Silence(self._memory)
        try:
            async with aclosing(cast("AsyncGenerator[Event, None]", adapter.run(turn, call))) as events:
                async for event in events:
                    if isinstance(event, AnswerRefused):
                        await self._wait_again(journal, opened.row, event)
                        break
                    self._note(journal, event)
                    if isinstance(event, ENDINGS):
                        break
                    if journal.is_full:
                        event = self._broken(journal, Failed(TOO_LONG_SAYS, kind=TOO_LONG))
                        break
                    silence.heard(event, journal.row)
                    _log(opened.row, event)
                    if _is_shown(turn, event):
                        showing.show()
                else:
                    event = self._broken(journal, Failed("The agent ended its turn without an outcome.", kind=BROKEN))
        except asyncio.CancelledError:
            if not showing.overtaken():
                raise
        except UpstreamFault as fault:
            event = self._broken(journal, Failed(fault.public, detail=fault.detail, kind=fault.kind))
        except Exception:  # a task's root: whatever went wrong, the task must end
            log.exception("turn_broke", agent=opened.row.agent, task_id=opened.row.id)
            event = self._broken(journal, Failed("The gateway could not go on with the agent's answer.", kind=OURS))
        silence.end()
        over = await showing.settled()
        turned = await self._ended(journal, event, started) if over is None else over
        return replace(turned, refused=True) if isinstance(event, AnswerRefused) and not event.kind else turned

    async def end(self, turned: Turned, event: Event) -> Turned:
        """Ends a task by the gateway's own hand, whatever its turn adds meanwhile. One that has ended stays as it is."""
        while not turned.row.ended:
            new = self.steps.after(turned.row, event)
            moved = await self._append(turned.row, new.row, new.events, self._memory.now())
            turned = joined(turned, new) if moved is None else moved
            if moved is None:
                break
        return turned

    async def stop(self, turned: Turned, event: Event) -> Turned:
        """As `end`. What can't be kept now is kept later, behind the caller's back. Raises EndingNotKept."""
        try:
            return await self.end(turned, event)
        except (NotKept, NotRead) as error:
            self._late.keep(turned.row.id, STOP, partial(self.end, turned, event))
            raise EndingNotKept(turned.row.id) from error

    async def end_lost(self, record: TaskRecord, why: Failed) -> bool:
        """Ends a task that nobody works on; False when it moved since it was looked at, and is not lost. Raises NotKept and NotRead."""
        new = self.steps.after(record.row, why)
        return await self._append(record.row, new.row, new.events, self._memory.now()) is None

    def is_late(self, task_id: str) -> bool:
        """Whether the task has an ending that is still to be kept."""
        return task_id in self._late

    async def close(self) -> None:
        """Gives up on endings that are still to be kept: the next start ends their tasks."""
        await self._late.close()

    async def _show(self, journal: Journal) -> Turned | None:
        """Keeps what waits; returns what somebody else made of the task. While the database is away, all of it goes on waiting."""
        fresh, row = journal.waiting(), journal.row
        try:
            moved = await self._append(journal.kept, row, fresh, None)
        except (NotKept, NotRead) as error:
            log.warning("entry_waits", task_id=row.id, error=type(error).__name__)
            return None
        if moved is None:
            journal.keep(row, len(fresh))
        return moved

    async def _ended(self, journal: Journal, event: Event, started: int) -> Turned:
        """Keeps an ending. What can't be kept now is kept later, behind the caller's back. Raises EndingNotKept."""
        journal.row = row = _answered(journal.row, event)
        fresh = journal.waiting()
        _log(row, event)
        keep = partial(self._append, journal.kept, row, fresh, started)
        try:
            moved = await keep()
        except (NotKept, NotRead) as error:
            self._late.keep(row.id, TURN, keep)
            raise EndingNotKept(row.id) from error
        return journal.turned() if moved is None else moved

    async def _append(self, old: TaskRow, new: TaskRow, fresh: Sequence[TaskEvent], started: int | None) -> Turned | None:
        """Appends events to a task that stands at `old`; with `started` also the outcome, and the end of the grant when it is over.

        Returns None, or what became of the task when somebody else moved it on. Raises NotKept and NotRead.
        """
        memory = self._memory

        def work(batch: Batch) -> None:
            memory.tasks.advance(batch, old, new, fresh)
            if started is not None:
                memory.audit.append(batch, _outcome(new, memory.now() - started))
                if not new.ended:  # it waits, and what its agent begins meanwhile has its own time
                    memory.grants.bind(batch, new.tenant, new.grant_id, new.id)

        try:
            await memory.database.write(work)
        except TaskEnded:
            record = await memory.tasks.record(new.tenant, new.owner, new.id)
            count = _reached(fresh, record) if record.row.runner in (old.runner, new.runner) else None
            if count is None:
                memory.tasks.moved(record.row, record.events)
                return Turned(record.row, record.events)
            if count < len(fresh):
                return await self._append(record.row, new, fresh[count:], started)
        if started is not None or new.ended:
            memory.grants.forget(new.tenant, new.grant_id)
        memory.tasks.moved(new, fresh)
        return None

    def _note(self, journal: Journal, event: Event) -> None:
        """Adds an event to the turn; nothing is kept yet."""
        if isinstance(event, ArtifactPiece):
            journal.note_piece(event, self._memory.now())
        else:
            journal.note(self.steps.after(journal.row, event))

    async def _wait_again(self, journal: Journal, before: TaskRow, refused: AnswerRefused) -> None:
        """Notes that the task waits as before: its agent took no answer, so its ids and prompts are those from before the turn."""
        try:
            record = await self._memory.tasks.record(before.tenant, before.owner, before.id)
        except NotRead:
            record = None
        statuses = (_status(event.body) for event in reversed(record.events if record else ()) if event.kind == "status")
        asked = next((status for status in statuses if status.state in INTERRUPTED), None)
        journal.row = replace(journal.row, vendor_ref=before.vendor_ref)
        journal.note(self.steps.waiting_again(journal.row, asked, refused))

    def _broken(self, journal: Journal, event: Failed) -> Failed:
        """Notes the failure that ends a turn whose agent gave it no ending."""
        self._note(journal, event)
        return event


def _answered(row: TaskRow, ending: Event) -> TaskRow:
    """Without the prompts that the turn answered, once the agent itself ended it. After any other failure the answers may be unread."""
    if isinstance(ending, Ask | AnswerRefused) or (isinstance(ending, Failed) and ending.kind):
        return row
    return replace(row, vendor_ref=keeping(row.vendor_ref, ()))


def _post_ref(memory: Memory, row: TaskRow) -> None:
    """Keeps the agent's own ids of a task it is silent about, by which it can be told to stop."""
    memory.database.post(lambda batch: memory.tasks.refer(batch, row))


class _Silence:
    """After an agent's first word: what it said is kept, unless something follows soon that is kept anyway."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._timer: asyncio.TimerHandle | None = None

    def heard(self, event: Event, row: TaskRow) -> None:
        if isinstance(event, Ref):
            self.end()
            self._timer = asyncio.get_running_loop().call_later(REF_SECONDS, _post_ref, self._memory, row)
            if event.ref.task_id:
                self._memory.tasks.note_agent_task(row)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _log(row: TaskRow, event: Event) -> None:
    """What callers do not get to see, for operators."""
    if isinstance(event, Failed):
        log.warning("agent_failed", agent=row.agent, task_id=row.id, problem=event.reason, detail=event.detail)
    elif isinstance(event, AnswerRefused):
        log.info("answer_refused", agent=row.agent, task_id=row.id, problem=event.reason, detail=event.detail)
    elif isinstance(event, Progress) and event.detail:
        log.warning("agent_traced", agent=row.agent, task_id=row.id, detail=event.detail)


def _is_shown(turn: Turn, event: Event) -> bool:
    """Whether it is kept as it comes, and not only with the ending."""
    return isinstance(event, Progress) or (turn.stream and isinstance(event, ArtifactPiece))


def _reached(fresh: Sequence[TaskEvent], record: TaskRecord) -> int | None:
    """How many of these events are kept already, by a commit that seemed to fail; None when somebody else moved the task on."""
    ours = tuple(event for event in fresh if event.seq <= record.row.last_seq)
    return len(ours) if ours == tuple(event for event in record.events if event.seq >= fresh[0].seq) else None


def outcome_of(state: TaskState) -> str:
    """How a turn ended that left its task in `state`, in one word."""
    return OUTCOMES.get(state, "failed")


def _outcome(row: TaskRow, duration_us: int) -> dict[str, object]:
    return {
        "kind": "outcome",
        "tenant": row.tenant,
        "decision_id": row.decision_id,
        "txn": row.txn,
        "task_id": row.id,
        "outcome": outcome_of(row.state),
        "state": row.state.value,
        "duration_us": duration_us,
    }
