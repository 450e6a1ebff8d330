"""Parking: tasks that wait until people allow what they were sent for, and go on or end by what these say."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Row, select

from adapters.contract import Failed
from adapters.oauth.agents import AUTH
from adapters.task import Message, TaskState, encode
from gateway.calls.authorizer import Ledger, denied, kept_opening
from gateway.calls.consent.approval_requests import Asking, Matter, defined, shown
from gateway.calls.consent.credential_scan import check_answer
from gateway.storage.database import Batch
from gateway.tasks.log import TaskEnded, TaskRecord, TaskRow, rfc3339
from gateway.tasks.turns.store import Memory, Turned, Turns
from policies.audit.log import decision_record
from policies.authority import Request, errand_of
from policies.callers import Caller
from policies.delegation import approval_rows
from policies.delegation.approval import Approval, Exact, NotShowable
from policies.delegation.rulings import Act, Grant, Question
from policies.tables import approvals
from registry.cards.card import Registration
from registry.drift.pins import pin

AT_ONCE = 100
_CLOSE = "UPDATE approvals SET state = ?, closed = ? WHERE tenant = ? AND id = ? AND closed IS NULL"


class AwaitsApproval(TaskEnded):
    """The task waits for people's approval, which no message stands for."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What a task that waits will send, and `how`: what else its sending said."""

    message: Message
    how: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that is to wait. `before`: as it was, if it is not new. `message` is kept in its log, `outgoing` is what it waits with."""

    row: TaskRow
    before: TaskRow | None
    message: Message
    target: Registration
    outgoing: Outgoing
    also: Callable[[Batch], None] | None


@dataclass(frozen=True, slots=True)
class Due:
    """A task whose people have spoken, or kept silent for too long."""

    approval: Approval
    grant_id: str
    how: Mapping[str, Any]
    arguments: str
    arguments_hash: str


class Parking:
    """What waits is a row, with the authority that it goes on with as a grant; nobody holds anything in memory for it."""

    def __init__(self, ledger: Ledger, memory: Memory, turns: Turns) -> None:
        self._ledger = ledger
        self._memory = memory
        self._turns = turns
        self._asking = Asking(memory)
        self._after = ""  # the approval that the last look ended with, behind which there may be more

    async def park(self, caller: Caller, waiting: Waiting, request: Request, question: Question) -> Turned:
        """The task as it waits (A2A 1.0 s7.6), with the question. Raises Refused, TooManyQuestions and as Ledger.open."""
        definition = defined(waiting.target, request.act)
        try:
            what = shown(request.arguments if request.arguments is not None else sent(waiting.outgoing), definition)
        except NotShowable:
            raise await self._ledger.refusal(caller, denied(question, "approval-too-large")) from None
        await self._asking.check_room(errand_of(caller, request))
        left = caller.delegation.rooted(self._memory.new_id("g"), waiting.row.id, waiting.row.txn)
        matter = Matter(caller, request, what, definition, left.grant_id, waiting.outgoing.how)
        asked, pending, approval = self._asking.posed(question, matter)
        text = (
            f"{pending.sentence} Approval {pending.id} waits for somebody who may decide, until {rfc3339(pending.expires)}. "
            "The task goes on by itself then; no message stands for it."
        )
        row = msgspec.structs.replace(waiting.row, decision_id=asked.decision.id, grant_id=left.grant_id)
        opened = self._turns.steps.parked(waiting.before, row, waiting.message, text)
        memory, asking, record = self._memory, self._asking, decision_record(asked.decision, caller.principal)

        def work(batch: Batch) -> None:
            memory.audit.append(batch, record)
            memory.grants.add(batch, left, caller.delegation.grant_id, asked.decision.at)
            asking.keep(batch, approval)
            if waiting.before:
                memory.tasks.advance(batch, waiting.before, opened.row, opened.events)
            else:
                memory.tasks.open(batch, opened.row, opened.events)
            if waiting.also:
                waiting.also(batch)

        await kept_opening(memory, work, opened, waiting.before)
        if waiting.before is None:
            return opened
        whole = await memory.tasks.record(row.tenant, row.owner, row.id)
        return Turned(whole.row, whole.events)

    async def due(self) -> list[Due]:
        """At most a hundred, and others with the next look: what waits for a place holds up nobody else.

        One that comes up in several processes is taken by one.
        """
        now = self._memory.now()
        spoken = (approvals.c.state != "pending") | (approvals.c.expires <= now)
        mine = (approvals.c.closed.is_(None), approvals.c.grant_id != "", approvals.c.id > self._after, spoken)
        query = select(approvals).where(*mine).order_by(approvals.c.id).limit(AT_ONCE)

        def due(row: "Row[Any]", approval: Approval) -> Due:
            if approval.expires <= now and approval.state in ("pending", "approved"):
                approval = msgspec.structs.replace(approval, state="expired")
            return Due(approval, row.grant_id, json.loads(row.errand), row.arguments, row.arguments_hash)

        found = await self._memory.database.read(
            lambda connection: [due(row, approval_rows.approval_of(connection, row)) for row in connection.execute(query).all()]
        )
        self._after = found[-1].approval.id if len(found) == AT_ONCE else ""
        return found

    async def check(self, row: TaskRow, message: Message) -> None:
        """Whether a message can answer what a task waits for. Raises AwaitsApproval and BadMessage."""
        if row.state is not TaskState.AUTH_REQUIRED:
            return
        check_answer(message)
        mine = (approvals.c.tenant == row.tenant) & (approvals.c.grant_id == row.grant_id) & (approvals.c.task_id == row.id)
        query = select(approvals.c.id).where(mine, approvals.c.closed.is_(None), approvals.c.grant_id != "")
        if await self._memory.database.read(lambda connection: connection.execute(query).first()) is not None:
            raise AwaitsApproval

    async def carried(self, caller: Caller, asked: Request, target: Registration, row: TaskRow) -> Request:
        """What goes on once people have consented, under the approval that its first try used, if it did and that still holds."""
        return await self._asking.carried(caller, asked, target, row.decision_id)

    async def give_back(self, grant: Grant) -> None:
        """An approval that a call used which was refused at the door for want of something else: nothing came of it."""
        if grant.decision.approval:
            tenant = grant.delegation.principal.tenant
            await self._memory.database.write(lambda batch: approval_rows.give_back(batch, tenant, grant.decision))

    def going_on(self, old: TaskRow, new: TaskRow) -> Turned:
        """The task as it works from now on; nothing is kept yet."""
        return self._turns.steps.going_on(old, new)

    async def end(self, due: Due, record: TaskRecord, why: str) -> None:
        """The task is rejected, and the approval of no more use."""
        await self.reject(Turned(record.row, record.events), Failed(why, rejected=True))
        await self.close(due)

    async def reject(self, waiting: Turned, why: Failed) -> None:
        """Ends a task that can't go on."""
        await self._turns.end(waiting, why)

    def left_behind(self, caller: Caller, target: Registration, row: TaskRow) -> tuple[TaskRow, Callable[[Batch], None] | None]:
        """Where people's own accounts open a server: what a person's call can go on with when they have consented, a grant of its own.

        An agent's call has one, and what is sent to an agent has the one that this is handed.
        """
        if row.grant_id or AUTH not in target.upstream:
            return row, None
        left = caller.delegation.rooted(self._memory.new_id("g"), row.id, row.txn)
        keep = partial(self._memory.grants.add, delegation=left, parent_id="", now_us=row.updated)
        return msgspec.structs.replace(row, grant_id=left.grant_id), keep

    async def close(self, due: Due) -> None:
        """What was allowed, but not done, is void."""
        state = due.approval.state if due.approval.state in ("denied", "expired") else "void"
        where, now = (due.approval.errand.tenant, due.approval.id), self._memory.now()
        await self._memory.database.write(lambda batch: batch.run(_CLOSE, (state, now, *where)))


def sent(outgoing: Outgoing) -> dict[str, Any]:
    """What a message to an agent says, without the ids of its way."""
    said = msgspec.json.decode(encode(outgoing.message))
    return {"message": {name: said[name] for name in ("parts", "metadata", "extensions") if name in said}, **outgoing.how}


def exactly(due: Due, target: Registration, act: Act) -> Exact:
    """What people were shown, beside the definition as it is now."""
    return Exact(due.arguments, due.arguments_hash, pin(defined(target, act)))


def last_message(record: TaskRecord) -> Message:
    """What the task was sent last, which it waits with."""
    return next(event.message for event in reversed(record.events) if event.kind == "message")


def said_of(approval: Approval) -> str:
    """Why a task does not go on, by what people said."""
    if approval.state == "denied":
        return f"Denied by somebody who may decide: {approval.reason}" if approval.reason else "Denied by somebody who may decide."
    return "Nobody who may decide allowed it in time."
