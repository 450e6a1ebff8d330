"""Calls of agents that take their time or ask: as tasks that the client looks after, or as questions before there is one (MRTR first)."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from msgspec import Raw

from adapters.contract import UpstreamFault
from adapters.mcp_client.wire.messages import INVALID_PARAMS
from adapters.mcp_client.wire.peer import Peer, PeerRefused
from adapters.task import Message, Role, TaskState
from gateway.background import let_go
from gateway.calls.broker import Broker, Sending
from gateway.calls.cancellation import NotCancelable
from gateway.ingress.mcp_server.elicitation.agent_questions import ELICITATION, answer_of, is_answer, questions_of
from gateway.ingress.mcp_server.protocol.client_wishes import lacking
from gateway.ingress.mcp_server.protocol.message import Asked
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.request_state import Seal, Sealed, bad_state, binding
from gateway.ingress.mcp_server.protocol.sessions import holder
from gateway.ingress.mcp_server.tasks.store import Answers
from gateway.ingress.mcp_server.tasks.wire import RELATED, created, older, takes_tasks, tool_result
from gateway.storage.database import NotKept, NotRead
from gateway.tasks.log import RUNNING, TaskEnded, TaskLog, TaskRecord, TaskRow, UnknownTask
from policies.ids import new_id
from registry.cards.republish import SKILL_SELECTION

PATIENCE_SECONDS = 0.5  # for which a client that takes tasks waits for an agent before it gets one
THINK_SECONDS = 600.0  # for which a person may think about a question
ROUNDS_MAX = 8
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()


class AgentTasks:
    """Every task is one of the log, durable before anybody hears of it."""

    def __init__(self, broker: Broker, tasks: TaskLog, answers: Answers, seal: Seal) -> None:
        self._broker = broker
        self._tasks = tasks
        self._answers = answers
        self._seal = seal
        self._canceling: set[asyncio.Task[None]] = set()

    async def call(self, asked: Asked, sending: Sending, peer: Peer | None) -> bytes:
        """A result, questions, or a task. Raises BadEnvelope and what the broker raises."""
        params = asked.object()
        if "requestState" in params and asked.modern:
            record = await self._resumed(asked, params)
        else:
            turned = await self._broker.start(asked.caller, sending)
            record = await self._record(turned.row)
        if not asked.modern and isinstance(params.get("task"), dict):
            return encode({"task": older(created(record))})
        try:
            patience = PATIENCE_SECONDS if asked.modern and takes_tasks(asked.capabilities) else None
            record = await self.settled(record, patience)
            if not asked.modern and peer is not None:
                record = await self._asked(asked, record, peer)
        except asyncio.CancelledError:
            self._cancel_later(asked, record.row)
            raise
        return await self._outcome(asked, record)

    async def settled(self, record: TaskRecord, patience: float | None = None) -> TaskRecord:
        """The task when it ends or waits for somebody, or as it stands when patience is over."""
        if record.row.state in RUNNING:
            try:
                async with asyncio.timeout(patience):
                    async for _ in self._tasks.follow(record.row, record.row.last_seq):
                        pass
            except TimeoutError:
                pass
            record = await self._record(record.row)
        return record

    async def answer(self, asked: Asked, record: TaskRecord, responses: Mapping[str, Any]) -> None:
        """Takes answers; with the last of them the agent goes on. Those to no open question mean nothing (SEP-2663)."""
        questions = questions_of(record)
        given = {key: answer for key, answer in responses.items() if key in questions and is_answer(questions[key], answer)}
        if not given:
            return
        answers = given if len(questions) == 1 else await self._answers.add(record.row, given)
        if questions.keys() - answers.keys():
            return
        try:
            await self._go_on(asked, record, questions, answers)
        except TaskEnded:
            log.info("answer_came_late", task_id=record.row.id)  # somebody else's came first
        if answers is not given:
            await self._answers.forget(record.row)

    async def ask(self, asked: Asked, record: TaskRecord, peer: Peer, meta: Mapping[str, Any]) -> TaskRecord:
        """Puts what the agent asks to an older client, one after the other. Raises PeerRefused."""
        answers: dict[str, Any] = {}
        for key, question in questions_of(record).items():
            said = await peer.ask(ELICITATION, Raw(encode({**question["params"], **meta})))
            answers[key] = msgspec.json.decode(said)
        await self.answer(asked, record, answers)
        return await self._record(record.row)

    async def answered(self, record: TaskRecord) -> Mapping[str, Any]:
        """Answers that wait for others."""
        return await self._answers.of(record.row) if record.row.state is TaskState.INPUT_REQUIRED else {}

    async def close(self) -> None:
        if self._canceling:
            await asyncio.wait(self._canceling, timeout=2)

    async def _record(self, row: TaskRow) -> TaskRecord:
        return await self._tasks.record(row.tenant, row.owner, row.id)

    async def _resumed(self, asked: Asked, params: Mapping[str, Any]) -> TaskRecord:
        """The task that a retry brings answers to. The same answers again find it gone on, and get what came of it."""
        state = self._seal.open(params["requestState"], _bound(asked))
        principal, responses = asked.caller.principal, params.get("inputResponses", {})
        if not isinstance(responses, dict):
            raise BadEnvelope(INVALID_PARAMS, "params.inputResponses must be an object")
        try:
            record = await self._tasks.record(principal.tenant, principal.owner, state.upstream or "")
        except UnknownTask:
            raise bad_state() from None
        await self.answer(asked, record, responses)
        return await self._record(record.row)

    async def _asked(self, asked: Asked, record: TaskRecord, peer: Peer) -> TaskRecord:
        """While the agent asks, its client is asked, as long as it can be."""
        for _ in range(ROUNDS_MAX):
            if record.row.state is not TaskState.INPUT_REQUIRED:
                break
            try:
                record = await self.ask(asked, record, peer, {})
            except PeerRefused:
                break  # the result says what the agent asks, and how to answer
            record = await self.settled(record)
        return record

    async def _go_on(self, asked: Asked, record: TaskRecord, questions: Mapping[str, Any], answers: Mapping[str, Any]) -> None:
        row, skill, parts = record.row, skill_of(record), answer_of(record, questions, answers)
        if parts is None:
            await self.cancel(asked, row)
            return
        metadata: Mapping[str, Any] = {"metadata": {SKILL_SELECTION: {"skillId": skill}}} if skill else {}
        message = Message(new_id("m"), Role.USER, parts, context_id=row.context_id, task_id=row.id, **metadata)
        await self._broker.start(asked.caller, Sending(row.agent, message, asked.trail, skill=skill))

    async def cancel(self, asked: Asked, row: TaskRow) -> None:
        """Has it stopped, as far as the agent lets itself be stopped. Raises UpstreamFault."""
        try:
            await self._broker.cancel(asked.caller, row.agent, row.id, asked.trail)
        except NotCancelable:
            log.info("task_goes_on", task_id=row.id)

    def _cancel_later(self, asked: Asked, row: TaskRow) -> None:
        """The client has left, and knows of no task that it could come back for."""

        async def cancel() -> None:
            try:
                await self.cancel(asked, row)
            except (UpstreamFault, UnknownTask, NotKept, NotRead) as error:
                log.warning("task_not_canceled", task_id=row.id, error=type(error).__name__)

        task = let_go(cancel(), "task_not_canceled", task_id=row.id)
        self._canceling.add(task)
        task.add_done_callback(self._canceling.discard)

    async def _outcome(self, asked: Asked, record: TaskRecord) -> bytes:
        if not asked.modern:
            return encode(tool_result(record, asked.version))
        capabilities, answered = asked.capabilities, await self.answered(record)
        questions = {key: question for key, question in questions_of(record).items() if key not in answered}
        if questions and not any(lacking(capabilities, each["method"], Raw(encode(each["params"]))) for each in questions.values()):
            state = self._seal.close(Sealed(self._seal.until(THINK_SECONDS), record.row.id), _bound(asked))
            return encode({"resultType": "input_required", "inputRequests": questions, "requestState": state})
        if takes_tasks(capabilities) and not record.row.ended and not questions:
            return encode({"resultType": "task", **created(record)})
        return encode({"resultType": "complete", **tool_result(record)})


def skill_of(record: TaskRecord) -> str:
    """The skill that the task was begun with; empty for the agent as a whole."""
    first = next((event for event in record.events if event.kind == "message"), None)
    message = msgspec.json.decode(first.body, type=Message) if first is not None else None
    chosen = message.metadata.get(SKILL_SELECTION) if message is not None and isinstance(message.metadata, dict) else None
    return str(chosen.get("skillId", "")) if isinstance(chosen, dict) else ""


def related(task_id: str) -> dict[str, Any]:
    """`_meta` of whatever belongs to a task of 2025-11-25."""
    return {"_meta": {RELATED: {"taskId": task_id}}}


def _bound(asked: Asked) -> bytes:
    return binding(holder(asked.caller), asked.resource, asked.method, asked.object())
