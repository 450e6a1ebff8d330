"""Turns on a database that may be shaky, with agents that say what they are told to."""

import asyncio
import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable

from sqlalchemy import select

from adapters.contract import ArtifactPiece, Call, Event, Turn, VendorRef
from adapters.task import TERMINAL, Artifact, Message, Part, Role, TaskState
from gateway.storage.database import Database
from gateway.tasks.log import TaskLog, TaskRecord, TaskRow
from gateway.tasks.turns.journal import TurnLimits
from gateway.tasks.turns.recorder import TurnRecorder, TurnState
from gateway.tasks.turns.stores import TaskStores
from policies.audit.log import AuditLog
from policies.delegation.grants import Grants
from policies.tables import audit_records as audit_table
from tests.fakes.a2a_calls import call_to
from tests.fakes.clock import Clock
from tests.fakes.outages import Shaky
from tests.fakes.waiting import SECONDS, until


def words(text: str) -> Message:
    return Message(message_id="m", role=Role.AGENT, parts=(Part(text=text),))


def piece(text: str) -> ArtifactPiece:
    return ArtifactPiece(Artifact(artifact_id="a", parts=(Part(text=text),)), append=True)


Act = Event | Exception | asyncio.Event | Callable[[], bool]


class Scripted:
    """An agent that says what it is told to; it raises an exception among the events, and waits for an asyncio.Event or a condition."""

    def __init__(self, *script: Act) -> None:
        self.script = script
        self.closed = False

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        try:
            for act in self.script:
                if isinstance(act, Exception):
                    raise act
                if isinstance(act, asyncio.Event):
                    await act.wait()
                elif callable(act):
                    await until(act)
                else:
                    yield act
        finally:
            self.closed = True

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return True


class Desk:
    """Turns on a database that may be shaky, with a clock that stands still."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.shaky = Shaky(database)
        self.clock = Clock()
        self.pauses: list[float] = []
        audit = AuditLog("a_1", self.clock.us)
        database.enlist(audit)
        self.log = TaskLog(self.shaky, self.clock.us, "p_1")  # type: ignore[arg-type]  # it does what the log needs
        numbers = itertools.count()
        new_id: Callable[[str], str] = lambda prefix: f"{prefix}_{next(numbers)}"  # noqa: E731 (as the gateway's is given)
        grants = Grants(self.shaky, self.clock)
        self.memory = TaskStores(self.shaky, audit, grants, self.log, new_id, self.clock.us)  # type: ignore[arg-type]  # see above
        self.turns = TurnRecorder(self.memory, self._pause)

    def limit(self, limits: TurnLimits) -> None:
        """From now on no more is kept of one turn."""
        self.memory = dataclasses.replace(self.memory, turn_limits=limits)
        self.turns = TurnRecorder(self.memory, self._pause)

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    async def opened(self, name: str = "t_1") -> TurnState:
        row = TaskRow(
            tenant="default",
            id=name,
            owner="default|dev|alice",
            context_id="c_1",
            agent="sales",
            state=TaskState.SUBMITTED,
            parent_id="",
            txn="x_1",
            decision_id="d_1",
            grant_id="g_1",
            created=self.clock.us(),
            updated=self.clock.us(),
        )
        opened = TurnState(*self.log.opening_events(row, words("please")))
        await self.database.write(lambda batch: self.log.open(batch, opened.row, opened.events))
        return opened

    async def run(self, *script: Act, stream: bool = True, opened: TurnState | None = None) -> TurnState:
        async with asyncio.timeout(SECONDS):
            turn = Turn(words("please"), stream=stream)
            return await self.turns.run_and_record(Scripted(*script), turn, call_to("http://agent.test"), opened or await self.opened())

    async def record(self, name: str = "t_1") -> TaskRecord:
        return await TaskLog(self.database, self.clock.us, "p_1").read_record("default", "default|dev|alice", name)

    async def _stands(self, name: str, so: Callable[[TaskRow], bool]) -> bool:
        return so((await self.record(name)).row)

    async def reached(self, seq: int, name: str = "t_1") -> None:
        """Waits until the log is so long."""
        await until(lambda: self._stands(name, lambda row: row.last_seq >= seq))

    async def ended(self, name: str = "t_1") -> TaskRecord:
        """The record, once the task has ended; and a check that it has done so once."""
        await until(lambda: self._stands(name, lambda row: row.has_ended))
        record = await self.record(name)
        states = [json.loads(event.body)["state"] for event in record.events if event.kind == "status"]
        assert [state for state in states if state in TERMINAL] == [record.row.state] == [states[-1]]
        assert [event.seq for event in record.events] == list(range(1, record.row.last_seq + 1))
        assert record.row.runner == ""
        return record

    async def outcomes(self) -> Counter[str]:
        rows = await self.database.read(lambda connection: connection.execute(select(audit_table.c.body)).scalars().all())
        return Counter(json.loads(body)["outcome"] for body in rows)
