"""Push notifications without a gateway around them: tasks that move as the test says, on a real database."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from adapters.task import Artifact, Message, Part, PushConfig, Role, TaskState, TaskStatus, encode
from adapters.upstream.egress import Egress, Lookup
from gateway.storage.database import Database
from gateway.tasks.events.entries import artifact_event
from gateway.tasks.log import TaskEvent, TaskLog, TaskRow
from gateway.tasks.webhooks.configs import WebhookConfigs
from gateway.tasks.webhooks.delivery import WebhookDelivery, WebhookSigner
from gateway.tasks.webhooks.outbox import Outbox
from policies.ids import new_id
from policies.keys.signing import SigningKeys
from tests.fakes.clock import Clock
from tests.fakes.plaintext_settings import PlaintextSettings

ALICE, BOB = "default|issuer|alice", "default|issuer|bob"
ISSUER = "https://gateway.example"
LOOPBACK = ("127.0.0.0/8",)


class PostOffice:
    """One process's part in it; several may share a database and a clock."""

    def __init__(
        self, database: Database, home: Path, clock: Clock | None = None, lookup: Lookup | None = None, allow: Sequence[str] = LOOPBACK
    ) -> None:
        self.database = database
        self.clock = clock or Clock()
        self.keys = SigningKeys.open(home)
        self.egress = Egress(allow, lookup=lookup)
        self.tasks = TaskLog(database, self.clock.us, "p1")
        self.push = WebhookConfigs(database, self.egress, new_id, self.clock.us, PlaintextSettings())
        self.outbox = Outbox(database, new_id, self.clock.us, PlaintextSettings())
        self.postman = WebhookDelivery(self.outbox, self.tasks, self.egress, WebhookSigner(self.keys, ISSUER, self.clock), lambda: 0.5)

    async def close(self) -> None:
        await self.postman.close()
        await self.egress.close()

    async def rounds(self, count: int = 1, seconds: float = 0.0) -> None:
        """Rounds with `seconds` before each, and all that they send."""
        for _ in range(count):
            self.clock.now += seconds
            await self.postman.run_once()
            await self.all_sent()

    async def all_sent(self) -> None:
        """Waits until no delivery is in flight."""
        while self.postman._in_flight:
            await asyncio.wait(list(self.postman._in_flight))

    async def open(self, owner: str = ALICE, tenant: str = "default") -> TaskRow:
        """A task with its first two events."""
        now = self.clock.us()
        names = {"decision_id": "d", "grant_id": "g", "parent_id": "", "txn": "x"}
        row = TaskRow(tenant, new_id("t"), owner, "c1", "sales", TaskState.SUBMITTED, **names, created=now, updated=now)
        row, events = self.tasks.opening_events(row, Message(message_id="m1", role=Role.USER, parts=(Part(text="go"),)))
        await self.database.write(lambda batch: self.tasks.open(batch, row, events))
        return row

    async def moves(self, row: TaskRow, state: TaskState) -> TaskRow:
        return await self._append(row, "status", encode(TaskStatus(state=state)).decode(), state)

    async def makes(self, row: TaskRow, text: str) -> TaskRow:
        artifact = Artifact(artifact_id=text, parts=(Part(text=text),))
        return await self._write(row, artifact_event(row.last_seq + 1, self.clock.us(), artifact, append=False, last_chunk=True), row.state)

    async def says(self, row: TaskRow, text: str, role: Role = Role.AGENT) -> TaskRow:
        message = Message(message_id=text, role=role, parts=(Part(text=text),))
        return await self._append(row, "message", encode(message).decode(), row.state)

    async def _append(self, row: TaskRow, kind: str, body: str, state: TaskState) -> TaskRow:
        return await self._write(row, TaskEvent(row.last_seq + 1, self.clock.us(), kind, body), state)

    async def _write(self, row: TaskRow, event: TaskEvent, state: TaskState) -> TaskRow:
        new = replace(row, last_seq=event.seq, state=state, updated=event.at)
        await self.database.write(lambda batch: self.tasks.advance(batch, row, new, (event,)))
        return new

    async def notify(self, row: TaskRow, url: str, **more: str) -> PushConfig:
        return await self.push.create(row.owner, row, PushConfig(url=url, **more))  # type: ignore[arg-type]  # ids and tokens are text
