"""Calls of agents that take long or ask questions: as tasks for the client, or as questions before there is a task (MRTR first)."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from msgspec import Raw

from adapters.contract import UpstreamFault
from adapters.mcp_client.wire.messages import INVALID_PARAMS
from adapters.mcp_client.wire.peer import McpPeer, PeerRefused
from adapters.task import Message, Role, TaskState
from gateway.calls.agent_calls import AgentCalls
from gateway.calls.agent_requests import AgentRequest
from gateway.calls.turns.cancellation import NotCancelable
from gateway.concurrency.background import run_in_background
from gateway.ingress.mcp_server.elicitation.agent_questions import ELICITATION_METHOD, answer_parts_of, is_answer, questions_of
from gateway.ingress.mcp_server.protocol.client_wishes import missing_capabilities
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.request_state import RequestState, RequestStateCipher, invalid_state_error, state_context
from gateway.ingress.mcp_server.protocol.sessions import holder_of
from gateway.ingress.mcp_server.tasks.store import AnswerStore
from gateway.ingress.mcp_server.tasks.wire import RELATED_TASK_KEY, created_task, declares_tasks, legacy_task, tool_result
from gateway.storage.database import ReadFailed, WriteFailed
from gateway.tasks.log import RUNNING_STATES, TaskLog, TaskNotWaiting, TaskRecord, TaskRow, UnknownTask
from policies.ids import new_id
from registry.cards.card import WORKFLOW_KIND, Family
from registry.cards.republish import SKILL_SELECTION
from registry.store import UnknownName

SYNC_WAIT_SECONDS = 0.5  # a client with tasks waits that long for the result before it gets a task
ANSWER_SECONDS = 600.0  # a question waits that long for its answer
ROUNDS_MAX = 8
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()


class AgentTasks:
    """Runs agents' tasks for MCP clients. Each is a task of the log, and durable before the client learns of it."""

    def __init__(self, agent_calls: AgentCalls, tasks: TaskLog, answer_store: AnswerStore, state_cipher: RequestStateCipher) -> None:
        self._agent_calls = agent_calls
        self._tasks = tasks
        self._answer_store = answer_store
        self._state_cipher = state_cipher
        self._cancellations: set[asyncio.Task[None]] = set()

    async def call(self, message: ClientMessage, agent_request: AgentRequest, peer: McpPeer | None) -> bytes:
        """Returns a result, questions, or a task. Raises BadEnvelope and what AgentCalls.send raises."""
        params = message.params_object()
        if "requestState" in params and message.is_modern:
            record = await self._resume_task(message, params)
        else:
            turn_state = await self._agent_calls.start(message.caller, agent_request)
            record = await self._read_record(turn_state.row)
        if not message.is_modern and isinstance(params.get("task"), dict):
            return encode({"task": legacy_task(created_task(record))})
        try:
            patience = SYNC_WAIT_SECONDS if message.is_modern and declares_tasks(message.capabilities) else None
            record = await self.wait_until_settled(record, patience)
            if not message.is_modern and peer is not None:
                record = await self._elicit_until_settled(message, record, peer)
        except asyncio.CancelledError:
            if not self._is_run(message, record.row):  # a run of a workflow goes on: its owner sees it among their runs
                self._cancel_in_background(message, record.row)
            raise
        return await self._outcome(message, record)

    async def wait_until_settled(self, record: TaskRecord, timeout_seconds: float | None = None) -> TaskRecord:
        """Returns the task when it has ended or waits for input, or its current state after `timeout_seconds`."""
        if record.row.state in RUNNING_STATES:
            try:
                async with asyncio.timeout(timeout_seconds):
                    async for _ in self._tasks.follow(record.row, record.row.last_seq):
                        pass
            except TimeoutError:
                pass
            record = await self._read_record(record.row)
        return record

    async def accept_answers(self, message: ClientMessage, record: TaskRecord, responses: Mapping[str, Any]) -> None:
        """Accepts answers. When all questions are answered, the agent continues. Answers to unknown questions are ignored (SEP-2663)."""
        questions = questions_of(record)
        valid_answers = {key: answer for key, answer in responses.items() if key in questions and is_answer(questions[key], answer)}
        if not valid_answers:
            return
        answers = valid_answers if len(questions) == 1 else await self._answer_store.add(record.row, valid_answers)
        if questions.keys() - answers.keys():
            return
        try:
            await self._continue_task(message, record, questions, answers)
        except TaskNotWaiting:
            log.info("answer_came_late", task_id=record.row.id)  # another answer was first
        if answers is not valid_answers:
            await self._answer_store.delete(record.row)

    async def elicit_answers(self, message: ClientMessage, record: TaskRecord, peer: McpPeer, meta: Mapping[str, Any]) -> TaskRecord:
        """Asks a legacy client the agent's questions one by one. Raises PeerRefused."""
        answers: dict[str, Any] = {}
        for key, question in questions_of(record).items():
            answer = await peer.ask(ELICITATION_METHOD, Raw(encode({**question["params"], **meta})))
            answers[key] = msgspec.json.decode(answer)
        await self.accept_answers(message, record, answers)
        return await self._read_record(record.row)

    async def pending_answers(self, record: TaskRecord) -> Mapping[str, Any]:
        """Returns the answers that are stored until all questions are answered."""
        return await self._answer_store.find_all(record.row) if record.row.state is TaskState.INPUT_REQUIRED else {}

    async def close(self) -> None:
        if self._cancellations:
            await asyncio.wait(self._cancellations, timeout=2)

    async def _read_record(self, row: TaskRow) -> TaskRecord:
        return await self._tasks.read_record(row.tenant, row.owner, row.id)

    async def _resume_task(self, message: ClientMessage, params: Mapping[str, Any]) -> TaskRecord:
        """Returns the task of a retry, with its answers accepted. Repeated answers find the task already continued, and get its result."""
        state = self._state_cipher.decrypt(params["requestState"], _state_context(message))
        principal, responses = message.caller.principal, params.get("inputResponses", {})
        if not isinstance(responses, dict):
            raise BadEnvelope(INVALID_PARAMS, "params.inputResponses must be an object")
        try:
            record = await self._tasks.read_record(principal.tenant, principal.owner_key, state.upstream or "")
        except UnknownTask:
            raise invalid_state_error() from None
        await self.accept_answers(message, record, responses)
        return await self._read_record(record.row)

    async def _elicit_until_settled(self, message: ClientMessage, record: TaskRecord, peer: McpPeer) -> TaskRecord:
        """Asks the client each time the agent asks, as long as the client answers."""
        for _ in range(ROUNDS_MAX):
            if record.row.state is not TaskState.INPUT_REQUIRED:
                break
            try:
                record = await self.elicit_answers(message, record, peer, {})
            except PeerRefused:
                break  # the result has the agent's question, and how to answer
            asked, record = record, await self.wait_until_settled(record)
            if record.row.last_seq == asked.row.last_seq:
                break  # the person declined, and the question stays open
        return record

    async def _continue_task(
        self, message: ClientMessage, record: TaskRecord, questions: Mapping[str, Any], answers: Mapping[str, Any]
    ) -> None:
        row, skill, parts = record.row, skill_of(record), answer_parts_of(record, questions, answers)
        if parts is None and self._is_run(message, row):
            return  # the question stays open for a later answer
        if parts is None:
            await self.cancel(message, row)
            return
        metadata: Mapping[str, Any] = {"metadata": {SKILL_SELECTION: {"skillId": skill}}} if skill else {}
        agent_message = Message(new_id("m"), Role.USER, parts, context_id=row.context_id, task_id=row.id, **metadata)
        await self._agent_calls.start(message.caller, AgentRequest(row.agent, agent_message, message.trace_context, skill=skill))

    def _is_run(self, message: ClientMessage, row: TaskRow) -> bool:
        """Whether the task is a run of a workflow."""
        try:
            return self._agent_calls.callees.find_registered(message.caller, row.agent, Family.AGENT).kind == WORKFLOW_KIND
        except UnknownName:
            return False

    async def cancel(self, message: ClientMessage, row: TaskRow) -> None:
        """Cancels the task, if the agent allows it. Raises UpstreamFault."""
        try:
            await self._agent_calls.cancel(message.caller, row.agent, row.id, message.trace_context)
        except NotCancelable:
            log.info("task_continues", task_id=row.id)

    def _cancel_in_background(self, message: ClientMessage, row: TaskRow) -> None:
        """Cancels the task of a client that disconnected, since that client does not know its id."""

        async def cancel() -> None:
            try:
                await self.cancel(message, row)
            except (UpstreamFault, UnknownTask, WriteFailed, ReadFailed) as error:
                log.warning("task_not_canceled", task_id=row.id, error=type(error).__name__)

        task = run_in_background(cancel(), "task_not_canceled", task_id=row.id)
        self._cancellations.add(task)
        task.add_done_callback(self._cancellations.discard)

    async def _outcome(self, message: ClientMessage, record: TaskRecord) -> bytes:
        if not message.is_modern:
            return encode(tool_result(record, message.version))
        capabilities, answered = message.capabilities, await self.pending_answers(record)
        questions = {key: question for key, question in questions_of(record).items() if key not in answered}
        if questions and not any(
            missing_capabilities(capabilities, each["method"], Raw(encode(each["params"]))) for each in questions.values()
        ):
            state = self._state_cipher.encrypt(
                RequestState(self._state_cipher.expiry_after(ANSWER_SECONDS), record.row.id), _state_context(message)
            )
            return encode({"resultType": "input_required", "inputRequests": questions, "requestState": state})
        if declares_tasks(capabilities) and not record.row.has_ended and not questions:
            return encode({"resultType": "task", **created_task(record)})
        return encode({"resultType": "complete", **tool_result(record)})


def skill_of(record: TaskRecord) -> str:
    """Returns the skill of the task's first message; empty for the agent as a whole."""
    first = next((event for event in record.events if event.kind == "message"), None)
    message = msgspec.json.decode(first.body, type=Message) if first is not None else None
    chosen = message.metadata.get(SKILL_SELECTION) if message is not None and isinstance(message.metadata, dict) else None
    return str(chosen.get("skillId", "")) if isinstance(chosen, dict) else ""


def related_task_meta(task_id: str) -> dict[str, Any]:
    """Returns the `_meta` of messages that belong to a task of 2025-11-25."""
    return {"_meta": {RELATED_TASK_KEY: {"taskId": task_id}}}


def _state_context(message: ClientMessage) -> bytes:
    return state_context(holder_of(message.caller), message.resource, message.method, message.params_object())
