"""Stores which task of which server an id refers to, open questions, and answers until all questions of an agent are answered."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, delete, select

from adapters.mcp_client.wire.messages import McpRequest
from gateway.calls.server_calls import ToolServerRequest
from gateway.ingress.mcp_server.elicitation.server_questions import InputRequest
from gateway.ingress.mcp_server.protocol.sessions import holder_of
from gateway.storage.database import Batch, Database
from gateway.storage.tables import mcp_questions, mcp_tasks, task_answers
from gateway.tasks.log import TaskRow, UnknownTask
from gateway.telemetry.spans import TraceContext
from policies.callers import Caller
from policies.delegation.rulings import act_of_following_task, act_of_stopping_task
from policies.ids import new_id

TASK_KEPT_SECONDS = 30 * 86_400  # a server's task is known that long, even if the server deletes it
ARGUMENTS_BYTES_MAX = 1 << 20  # bytes of JSON; later rulings on a task with more don't see its arguments
_INSERT_ANSWER = "INSERT INTO task_answers (tenant, task_id, question, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_DELETE_ANSWERS = "DELETE FROM task_answers WHERE tenant = ? AND task_id = ?"
encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_arguments = msgspec.json.Decoder(dict[str, Any] | None).decode
_decode_question = msgspec.json.Decoder(InputRequest).decode


class ServerTask(Struct, frozen=True):
    """A task of a server. `id` is the gateway's id, `server_task_id` the server's.

    `capabilities` are those that a server of the legacy era was sent, in whose session the task is. `arguments` are those of the call,
    as far as they are known. The `id` of a task that an approval started ends in the id of the decision that used the approval.
    """

    id: str
    server: str
    tool: str
    server_task_id: str
    capabilities: Mapping[str, Any] = {}
    arguments: Mapping[str, Any] | None = None

    @property
    def continues_decision_id(self) -> str:
        """Returns the id of the decision that started the task, where the call needed an approval; else an id that no decision has."""
        return f"d_{self.id.partition('_')[2]}"

    def build_call(self, request: McpRequest, trace_context: TraceContext, is_cancel: bool) -> ToolServerRequest:
        """Returns a request about the task, authorized like the call that started it.

        `is_cancel`: the request cancels the task, or reads it in order to cancel it.
        """
        act = (act_of_stopping_task if is_cancel else act_of_following_task)(self.server, self.tool)
        return ToolServerRequest(self.server, act, self.arguments, request, trace_context, continues_decision_id=self.continues_decision_id)


class ServerTaskStore:
    """Tasks of servers, each bound to the caller of its tool. `now` returns microseconds since 1970."""

    def __init__(self, database: Database, now: Callable[[], int]) -> None:
        self._database = database
        self._now = now

    async def write(self, caller: Caller, new_task: ServerTask, decision_id: str) -> ServerTask:
        """Stores a new task durably and returns it with its id. `decision_id` is the decision that used an approval, or "".

        Raises WriteFailed.
        """
        task = replace(new_task, id=f"mt_{decision_id.partition('_')[2]}" if decision_id else new_id("mt"))
        row: dict[str, Any] = {
            "id": task.id,
            "tenant": caller.principal.tenant,
            "holder": holder_of(caller),
            "server": task.server,
            "tool": task.tool,
            "own": task.server_task_id,
            "capabilities": encode(task.capabilities).decode(),
            "arguments": _encode_arguments(task.arguments),
        }
        row["created"] = self._now()
        await self._database.write(lambda batch: batch.add(mcp_tasks, row))
        return task

    async def find(self, caller: Caller, task_id: str) -> ServerTask:
        """Returns the caller's task. Raises UnknownTask, also for a task of another caller."""
        known = mcp_tasks.c
        of_task = (known.tenant == caller.principal.tenant) & (known.holder == holder_of(caller)) & (known.id == task_id)
        found = await self._database.read(lambda connection: connection.execute(select(mcp_tasks).where(of_task)).one_or_none())
        if found is None:
            raise UnknownTask
        return ServerTask(
            found.id, found.server, found.tool, found.own, _decode_object(found.capabilities), _decode_arguments(found.arguments or "null")
        )

    async def write_question(self, task: ServerTask, question_key: str, process: str, question: InputRequest) -> None:
        """Stores a question that `process` waits for. Raises WriteFailed."""
        row = {"task_id": task.id, "question": question_key, "process": process, "body": encode(question).decode()}
        await self._database.write(lambda batch: batch.add(mcp_questions, row))

    async def open_questions(self, task: ServerTask) -> list[tuple[str, str, InputRequest]]:
        """Returns (key, process, question) of open questions, the oldest first. Raises ReadFailed."""
        open_now = select(mcp_questions).where(mcp_questions.c.task_id == task.id).order_by(mcp_questions.c.question)

        def work(connection: Connection) -> list[tuple[str, str, InputRequest]]:
            return [(found.question, found.process, _decode_question(found.body)) for found in connection.execute(open_now)]

        return await self._database.read(work)

    async def close_question(self, task: ServerTask, question_key: str) -> bool:
        """Closes a question. Returns False when it was answered before, or never asked. Raises WriteFailed."""
        of_question = (mcp_questions.c.task_id == task.id) & (mcp_questions.c.question == question_key)
        return bool(await self._database.write(lambda batch: batch.connection.execute(delete(mcp_questions).where(of_question)).rowcount))

    async def sweep(self) -> None:
        """Deletes tasks older than TASK_KEPT_SECONDS, and their questions. A periodic task calls it."""
        cutoff = self._now() - TASK_KEPT_SECONDS * 1_000_000

        def work(batch: Batch) -> None:
            batch.run("DELETE FROM mcp_questions WHERE task_id IN (SELECT id FROM mcp_tasks WHERE created < ?)", (cutoff,))
            batch.run("DELETE FROM mcp_tasks WHERE created < ?", (cutoff,))

        await self._database.write(work)


def _encode_arguments(arguments: Mapping[str, Any] | None) -> str | None:
    text = encode(arguments)
    return None if arguments is None or len(text) > ARGUMENTS_BYTES_MAX else text.decode()


class AnswerStore:
    """Answers to some of an agent's questions, stored until all are answered."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: TaskRow, answers: Mapping[str, Any]) -> dict[str, Any]:
        """Stores answers, and returns all answers stored so far. The first answer to a question counts."""

        def work(batch: Batch) -> None:
            for question, answer in answers.items():
                batch.run(_INSERT_ANSWER, (row.tenant, row.id, question, encode(answer).decode()))

        if answers:
            await self._database.write(work)
        return await self.find_all(row)

    async def find_all(self, row: TaskRow) -> dict[str, Any]:
        def work(connection: Connection) -> dict[str, Any]:
            match = (task_answers.c.tenant == row.tenant) & (task_answers.c.task_id == row.id)
            return {found.question: _decode_object(found.body) for found in connection.execute(select(task_answers).where(match))}

        return await self._database.read(work)

    async def delete(self, row: TaskRow) -> None:
        await self._database.write(lambda batch: batch.run(_DELETE_ANSWERS, (row.tenant, row.id)))
