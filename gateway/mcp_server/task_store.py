"""What is kept of tasks beside their log: which task of which server an id stands for, and answers that wait for others."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from gateway.database import Batch, Database
from gateway.mcp_server.sessions import holder
from gateway.tables import mcp_tasks, task_answers
from gateway.tasks import TaskRow, UnknownTask
from policies.authority import Caller
from policies.ids import new_id

KEPT_SECONDS = 30 * 86_400  # for which a server's task is known, however long the server keeps it
_ANSWER = "INSERT INTO task_answers (tenant, task_id, question, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_FORGET = "DELETE FROM task_answers WHERE tenant = ? AND task_id = ?"
encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, Any]).decode


class ServerTask(Struct, frozen=True):
    """A task of a server. `id` is what its caller knows, `own` what the server calls it."""

    id: str
    server: str
    tool: str
    own: str


class ServerTasks:
    """Tasks of servers, each bound to whoever called the tool. `now` counts microseconds since 1970."""

    def __init__(self, database: Database, now: Callable[[], int]) -> None:
        self._database = database
        self._now = now

    async def keep(self, caller: Caller, server: str, tool: str, own: str) -> ServerTask:
        """Durable when it returns. Raises NotKept."""
        task = ServerTask(new_id("mt"), server, tool, own)
        row: dict[str, Any] = {
            "id": task.id,
            "tenant": caller.principal.tenant,
            "holder": holder(caller),
            "server": server,
            "tool": tool,
            "own": own,
        }
        row["created"] = self._now()
        await self._database.write(lambda batch: batch.add(mcp_tasks, row))
        return task

    async def find(self, caller: Caller, task_id: str) -> ServerTask:
        """Raises UnknownTask, for a foreign one too."""
        known = mcp_tasks.c
        mine = (known.tenant == caller.principal.tenant) & (known.holder == holder(caller)) & (known.id == task_id)
        found = await self._database.read(lambda connection: connection.execute(select(mcp_tasks).where(mine)).one_or_none())
        if found is None:
            raise UnknownTask
        return ServerTask(found.id, found.server, found.tool, found.own)

    async def sweep(self) -> None:
        """Forgets old ones; to be called now and then."""
        before = self._now() - KEPT_SECONDS * 1_000_000
        await self._database.write(lambda batch: batch.run("DELETE FROM mcp_tasks WHERE created < ?", (before,)))


class Answers:
    """Answers to some of an agent's questions, until it has them all."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: TaskRow, given: Mapping[str, Any]) -> dict[str, Any]:
        """All there are now, those of others included; the first answer to a question counts."""

        def work(batch: Batch) -> None:
            for question, answer in given.items():
                batch.run(_ANSWER, (row.tenant, row.id, question, encode(answer).decode()))

        if given:
            await self._database.write(work)
        return await self.of(row)

    async def of(self, row: TaskRow) -> dict[str, Any]:
        def work(connection: Connection) -> dict[str, Any]:
            match = (task_answers.c.tenant == row.tenant) & (task_answers.c.task_id == row.id)
            return {found.question: _object(found.body) for found in connection.execute(select(task_answers).where(match))}

        return await self._database.read(work)

    async def forget(self, row: TaskRow) -> None:
        await self._database.write(lambda batch: batch.run(_FORGET, (row.tenant, row.id)))
