"""Checkpoints: steps of a run that people answer. Each is a row, answered once, with an expiry."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy import Row, select

from gateway.storage.database import Batch
from gateway.storage.tables import ENDED_STATES, tasks
from gateway.tasks.contracts.json_schema import BadSchema, problem_of
from gateway.tasks.log import to_rfc3339
from gateway.tasks.notices.feed import Notice, write_notice
from gateway.workflows.interpreter.effects import StepKey
from gateway.workflows.problems import BadCheckpointAnswer, CheckpointClosed, SignalNotAwaited, UnknownCheckpoint
from gateway.workflows.runs.people.relaxations import CheckpointPlace, count_question
from gateway.workflows.runs.requesters import add_requesters, encode_requesters, txn_of
from gateway.workflows.runs.store import RunKey, RunStore, lock_run, wake
from gateway.workflows.runs.tables import IS_TASK_OF_CHECKPOINT, workflow_checkpoints, workflow_runs
from gateway.workflows.runs.values import digest_of
from policies.audit.log import AuditLog

APPROVE: Final = "approve"
CHOOSE: Final = "choose"
FORM: Final = "form"
SIGNAL: Final = "signal"  # its prompt is the name of the signal
log = structlog.get_logger()
PENDING: Final = "pending"
WITHDRAWN_MAX: Final = 200  # at once, of runs that have ended
WITHDRAWN: Final = "withdrawn"  # the run has gone on or ended without an answer
RUN_ENDED: Final = "The run of the checkpoint has ended."
CLOSED_TEXTS: Final = {
    "answered": "The checkpoint is answered already.",
    "relaxed": "The checkpoint was answered without people, because it is relaxed.",
    "expired": "The checkpoint has expired.",
    WITHDRAWN: "The checkpoint was withdrawn, because its run went on without an answer.",
}
_INSERT: Final = (
    "INSERT INTO workflow_checkpoints "
    "(tenant, id, run_id, step, workflow, owner, kind, prompt, schema, subject, state, answer, answered_by, answer_key, created, expires, "
    "escalates, escalate_to, requesters) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', '', '', '', ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_ANSWER: Final = (
    "UPDATE workflow_checkpoints SET state = 'answered', answer = ?, answered_by = ?, answer_key = ?, answered = ? "
    "WHERE tenant = ? AND id = ? AND state = 'pending' AND expires > ?"
)
_ESCALATE: Final = "UPDATE workflow_checkpoints SET escalated = ? WHERE tenant = ? AND id = ? AND state = 'pending' AND escalated IS NULL"
_RELAX: Final = "UPDATE workflow_checkpoints SET state = 'relaxed', answer = ? WHERE tenant = ? AND id = ?"
_WITHDRAW: Final = "UPDATE workflow_checkpoints SET state = 'withdrawn' WHERE tenant = ? AND id = ? AND state = 'pending'"
_SET_NOTE: Final = "UPDATE workflow_runs SET note = ? WHERE tenant = ? AND id = ?"
_EXPIRE: Final = "UPDATE workflow_checkpoints SET state = 'expired' WHERE tenant = ? AND id = ? AND state = 'pending'"


class Answerer(Struct, frozen=True):
    """Who answers, by which ruling, and the idempotency key of a signal."""

    owner: str
    decision_id: str = ""
    key: str = ""


class Escalation(Struct, frozen=True):
    """From `at` on (microseconds since 1970), people with one of the roles or permissions may answer too."""

    at: int
    roles: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()


class Checkpoint(Struct, frozen=True):
    """A question of a run to people. `schema` is the JSON Schema of the answer, `subject` what the question is about, such as a plan.

    Times are microseconds since 1970.
    """

    run: RunKey
    id: str
    step: str
    workflow: str
    owner: str
    kind: str
    prompt: str
    schema: Mapping[str, Any]
    created: int
    expires: int
    state: str = "pending"
    answer: Any = None
    answered_by: str = ""
    answer_key: str = ""
    subject: Any = None
    escalation: Escalation | None = None
    is_escalated: bool = False  # the escalation has begun, and is recorded
    requesters: tuple[str, ...] = ()  # of a run that a service owns: tenant|issuer|subject of those who brought it about

    def is_requested_by(self, person: str) -> bool:
        """Whether a person (tenant|issuer|subject) asks for what the checkpoint is about, and so does not approve of it."""
        return person == self.owner or person in self.requesters

    def is_open_to(self, roles: Collection[str], has_permission: Callable[[str], bool]) -> bool:
        """Whether the escalation lets a person with these roles answer."""
        if self.escalation is None or not self.is_escalated:
            return False
        return any(role in roles for role in self.escalation.roles) or any(map(has_permission, self.escalation.permissions))


class Shortcut(Struct, frozen=True):
    """What a relaxed checkpoint answers by itself, unless its turn has come to be asked."""

    place: CheckpointPlace
    every: int
    value: Any

    def is_asked(self, batch: Batch) -> bool:
        """Counts the question, and says whether it is one that people get: each k-th, and any after the relaxation was removed."""
        number = count_question(batch, self.place)
        return number == 0 or (self.every > 0 and number % self.every == 0)


def checkpoint_id(run: RunKey, key: StepKey) -> str:
    """The id of the checkpoint of one step, the same one each time the run is replayed."""
    return "cp_" + hashlib.sha256(f"{run.tenant}\n{run.id}\n{key}".encode()).hexdigest()[:24]


class Checkpoints:
    """Writes and reads checkpoints."""

    def __init__(self, store: RunStore, audit: AuditLog) -> None:
        self._store = store
        self._audit = audit

    async def open(self, checkpoint: Checkpoint, shortcut: Shortcut | None = None) -> Checkpoint:
        """The checkpoint as it stands, made if it is not there yet. No person is asked where a new one can take the shortcut.

        Raises RunTaken.
        """
        run, schema = checkpoint.run, msgspec.json.encode(checkpoint.schema).decode()
        subject = "" if checkpoint.subject is None else msgspec.json.encode(checkpoint.subject).decode()
        asked = (checkpoint.step, checkpoint.workflow, checkpoint.owner, checkpoint.kind, checkpoint.prompt, schema, subject)
        escalates, to = (None, "") if checkpoint.escalation is None else _escalation_columns(checkpoint.escalation)
        values = (run.tenant, checkpoint.id, run.id, *asked, checkpoint.created, checkpoint.expires, escalates, to)

        def work(batch: Batch) -> Checkpoint:
            lock_run(batch, run, self._store.process)
            requesters = add_requesters(batch, run.tenant, txn_of(batch.connection, run.tenant, run.id), ())  # as they are by now
            if batch.run(_INSERT, (*values, encode_requesters(requesters))):
                if shortcut is not None and not shortcut.is_asked(batch):
                    batch.run(_RELAX, (msgspec.json.encode(shortcut.value).decode(), run.tenant, checkpoint.id))
                    self._record_change(batch, "relaxed", checkpoint)
                else:
                    self._record_change(batch, "opened", checkpoint)
            return checkpoint_from_row(batch.connection.execute(_one(run.tenant, checkpoint.id)).one())

        return await self._store.database.write(work)

    async def escalate(self, checkpoint: Checkpoint) -> Checkpoint:
        """Lets more people answer from now on, unless the checkpoint is closed, and returns it as it stands."""

        def work(batch: Batch) -> Checkpoint:
            if batch.run(_ESCALATE, (self._store.now(), checkpoint.run.tenant, checkpoint.id)) and checkpoint.escalation is not None:
                to = {"roles": list(checkpoint.escalation.roles), "permissions": list(checkpoint.escalation.permissions)}
                self._record_change(batch, "escalated", checkpoint, to=to)
            return checkpoint_from_row(batch.connection.execute(_one(checkpoint.run.tenant, checkpoint.id)).one())

        return await self._store.database.write(work)

    async def expire(self, checkpoint: Checkpoint) -> Checkpoint:
        """Ends the waiting for an answer, unless there is one, and returns the checkpoint as it stands."""

        def work(batch: Batch) -> Checkpoint:
            if batch.run(_EXPIRE, (checkpoint.run.tenant, checkpoint.id)):
                self._record_change(batch, "expired", checkpoint)
            return checkpoint_from_row(batch.connection.execute(_one(checkpoint.run.tenant, checkpoint.id)).one())

        return await self._store.database.write(work)

    async def answer(self, checkpoint: Checkpoint, value: Any, by: Answerer) -> Checkpoint:
        """Stores the answer and has the run go on, in one commit. Raises BadCheckpointAnswer and CheckpointClosed."""
        _check_answer(checkpoint, value)
        now, run = self._store.now(), checkpoint.run
        encoded = msgspec.json.encode(value).decode()

        def work(batch: Batch) -> Checkpoint:
            answer = (encoded, by.owner, by.key, now, run.tenant, checkpoint.id, now)
            if _has_ended(batch, run) or not batch.run(_ANSWER, answer):
                raise CheckpointClosed(_why_closed(batch, run, checkpoint.id))
            wake(batch, run, now)
            _drop_note(batch, checkpoint)
            self._record_change(batch, "answered", checkpoint, decision_id=by.decision_id, by=by.owner)
            return checkpoint_from_row(batch.connection.execute(_one(run.tenant, checkpoint.id)).one())

        return await self._store.database.write_or_refuse(work, CheckpointClosed)

    def _record_change(self, batch: Batch, what: str, checkpoint: Checkpoint, **more: Any) -> None:
        """Writes what became of a checkpoint to the audit, and to the feed of notices where people are asked: not for a signal."""
        kind = "run-signaled" if checkpoint.kind == SIGNAL and what == "answered" else f"checkpoint-{what}"
        self._audit.record(batch, audit_record(kind, checkpoint) | more)
        if checkpoint.kind == SIGNAL:
            return
        run, body = checkpoint.run, _notice_body(checkpoint) | {name: value for name, value in more.items() if name != "decision_id"}
        write_notice(batch, Notice(run.tenant, f"checkpoint.{what}", checkpoint.id, run.id, checkpoint.owner, body, self._store.now()))

    async def find(self, tenant: str, checkpoint_id: str) -> Checkpoint:
        """Raises UnknownCheckpoint."""
        row = await self._store.database.read(lambda connection: connection.execute(_one(tenant, checkpoint_id)).first())
        if row is None:
            raise UnknownCheckpoint
        return checkpoint_from_row(row)

    async def of_run(self, run: RunKey) -> list[Checkpoint]:
        """Every checkpoint of a run, the oldest first."""
        mine = (workflow_checkpoints.c.tenant == run.tenant) & (workflow_checkpoints.c.run_id == run.id)
        query = select(workflow_checkpoints).where(mine).order_by(workflow_checkpoints.c.created, workflow_checkpoints.c.id)
        return [checkpoint_from_row(row) for row in await self._store.database.read(lambda connection: connection.execute(query).all())]

    def withdrawing_write(self, run: RunKey, kept: Sequence[str] = ()) -> Callable[[Batch], None]:
        """Withdraws the open checkpoints of a run but those with the ids `kept`, in a commit of the caller's."""

        def work(batch: Batch) -> None:
            for row in batch.connection.execute(_open_of(run).where(workflow_checkpoints.c.id.not_in(kept))).all():
                self._withdraw(batch, checkpoint_from_row(row))

        return work

    async def withdraw(self, run: RunKey) -> None:
        """Withdraws every open checkpoint of a run."""
        if await self._store.database.read(lambda connection: connection.execute(_open_of(run)).first()) is not None:
            await self._store.database.write(self.withdrawing_write(run))

    async def withdraw_ended(self) -> int:
        """Withdraws checkpoints of runs that have ended otherwise than by themselves, and returns how many."""
        table = workflow_checkpoints
        query = select(table).join(tasks, IS_TASK_OF_CHECKPOINT).where(table.c.state == PENDING, tasks.c.state.in_(ENDED_STATES))
        query = query.limit(WITHDRAWN_MAX)
        found = _readable(await self._store.database.read(lambda connection: connection.execute(query).all()))
        if not found:
            return 0
        return await self._store.database.write(lambda batch: sum([self._withdraw(batch, each) for each in found]))

    def _withdraw(self, batch: Batch, checkpoint: Checkpoint) -> int:
        changed = batch.run(_WITHDRAW, (checkpoint.run.tenant, checkpoint.id))
        if changed:
            self._record_change(batch, "withdrawn", checkpoint)
        return changed

    async def signal(self, run: RunKey, name: str, value: Any, by: Answerer) -> Checkpoint:
        """Gives a signal to the run that waits for it. A signal of the same key is given once.

        Raises BadCheckpointAnswer, and SignalNotAwaited unless the run waits for a signal of this name.
        """
        waits = [each for each in await self.of_run(run) if each.kind == SIGNAL and each.prompt == name]
        given = next((each for each in waits if by.key and each.answer_key == by.key), None)
        if given is not None:
            return given
        now = self._store.now()
        open_one = next((each for each in waits if each.state == "pending" and each.expires > now), None)
        if open_one is None:
            raise SignalNotAwaited
        try:
            return await self.answer(open_one, value, by)
        except CheckpointClosed as closed:
            raise SignalNotAwaited from closed


def _one(tenant: str, checkpoint_id: str) -> Any:
    return select(workflow_checkpoints).where(workflow_checkpoints.c.tenant == tenant, workflow_checkpoints.c.id == checkpoint_id)


def _open_of(run: RunKey) -> Any:
    table = workflow_checkpoints
    return select(table).where(table.c.tenant == run.tenant, table.c.run_id == run.id, table.c.state == PENDING)


def note_of(checkpoint: Checkpoint) -> str:
    """What a run says that waits for this checkpoint."""
    return f"{checkpoint.step}: {checkpoint.prompt} (checkpoint {checkpoint.id})"


def _drop_note(batch: Batch, checkpoint: Checkpoint) -> None:
    """Takes the checkpoint out of what its run says that it waits for. A paused run would say so until it is resumed."""
    columns, run = workflow_runs.c, checkpoint.run
    note = batch.connection.execute(select(columns.note).where(columns.tenant == run.tenant, columns.id == run.id)).scalar()
    left = (note or "").replace(note_of(checkpoint), "").replace("\n\n", "\n").strip("\n")
    batch.run(_SET_NOTE, (left, run.tenant, run.id))


def _has_ended(batch: Batch, run: RunKey) -> bool:
    state = batch.connection.execute(select(tasks.c.state).where(tasks.c.tenant == run.tenant, tasks.c.id == run.id)).scalar()
    return state is None or state in ENDED_STATES


def _why_closed(batch: Batch, run: RunKey, checkpoint_id: str) -> str:
    """Why a checkpoint takes no answer. One that is still pending has outlived its time, or its run."""
    state = str(batch.connection.execute(_one(run.tenant, checkpoint_id)).one().state)
    if state in (PENDING, WITHDRAWN) and _has_ended(batch, run):
        return RUN_ENDED
    return CLOSED_TEXTS.get(state, CLOSED_TEXTS["expired"])


def _check_answer(checkpoint: Checkpoint, value: Any) -> None:
    try:
        problem = problem_of(checkpoint.schema, value)
    except BadSchema as error:
        raise BadCheckpointAnswer(str(error)) from error
    if problem:
        raise BadCheckpointAnswer(problem)


def checkpoint_from_row(row: "Row[Any]") -> Checkpoint:
    return Checkpoint(
        run=RunKey(row.tenant, row.run_id),
        id=row.id,
        step=row.step,
        workflow=row.workflow,
        owner=row.owner,
        kind=row.kind,
        prompt=row.prompt,
        schema=msgspec.json.decode(row.schema),
        created=row.created,
        expires=row.expires,
        state=row.state,
        answer=msgspec.json.decode(row.answer) if row.answer else None,
        answered_by=row.answered_by,
        answer_key=row.answer_key,
        subject=msgspec.json.decode(row.subject) if row.subject else None,
        escalation=None if row.escalates is None else Escalation(row.escalates, **_decode_audience(row.escalate_to)),
        is_escalated=row.escalated is not None,
        requesters=tuple(msgspec.json.decode(row.requesters or "[]")),
    )


def _readable(rows: "Sequence[Row[Any]]") -> list[Checkpoint]:
    """The checkpoints of rows. One that can't be read is logged, and the others go on."""
    found = []
    for row in rows:
        try:
            found.append(checkpoint_from_row(row))
        except msgspec.MsgspecError as error:
            log.error("checkpoint_unreadable", tenant=row.tenant, checkpoint=row.id, error=str(error))
    return found


def _escalation_columns(escalation: Escalation) -> tuple[int, str]:
    audience = {"roles": escalation.roles, "permissions": escalation.permissions}
    return escalation.at, msgspec.json.encode(audience).decode()


def _decode_audience(text: str) -> dict[str, tuple[str, ...]]:
    return msgspec.json.decode(text, type=dict[str, tuple[str, ...]])


def _notice_body(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a notice tells of a checkpoint: the question, never the answer."""
    asked = {"checkpoint": checkpoint.id, "workflow": checkpoint.workflow, "step": checkpoint.step, "kind": checkpoint.kind}
    return asked | {"prompt": checkpoint.prompt, "expires": to_rfc3339(checkpoint.expires)}


def audit_record(kind: str, checkpoint: Checkpoint) -> dict[str, object]:
    return {
        "kind": kind,
        "tenant": checkpoint.run.tenant,
        "decision_id": "",
        "txn": "",
        "task_id": checkpoint.run.id,
        "checkpoint_id": checkpoint.id,
        "step": checkpoint.step,
        "workflow": checkpoint.workflow,
        "checkpoint_kind": checkpoint.kind,
        **({} if checkpoint.subject is None else {"subject_digest": digest_of(checkpoint.subject)}),
    }
