"""Agents as tools: a tools/call becomes a message to the agent, and its task becomes the result, at once or later."""

from collections.abc import Mapping
from typing import Any

import msgspec

from adapters.a2a_client.wire.v1 import ID_LIMIT, BadMessage
from adapters.mcp_client.wire.messages import INVALID_PARAMS
from adapters.mcp_client.wire.peer import McpPeer
from adapters.task import Message, Part, Role
from gateway.calls.agent_calls import AgentCalls
from gateway.calls.agent_requests import AgentRequest
from gateway.ingress.mcp_server.catalogue.tools import AgentTool
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.tasks.agent_tasks import AgentTasks
from gateway.ingress.mcp_server.tasks.wire import check_declares_tasks, declares_tasks, tool_result
from gateway.tasks.contracts.prompts import BadPromptAnswer
from gateway.tasks.contracts.skills import ContractBroken
from gateway.tasks.log import TaskNotWaiting, TaskRecord, UnknownTask
from policies.ids import new_id
from registry.cards.republish import SKILL_SELECTION

DATA_PART_PATH = "message.parts[0].data"
ID_ARGUMENTS = ("context_id", "task_id")
NO_SUCH_TASK_TEXT = "arguments.task_id names no task of this agent that waits for an answer in this conversation"
NEEDS_TASKS_TEXT = "this tool can only be called by clients that support tasks"
encode = msgspec.json.Encoder().encode


class AgentToolCalls:
    """Calls agents as tools."""

    def __init__(self, agent_calls: AgentCalls, tasks: AgentTasks) -> None:
        self._agent_calls = agent_calls
        self._tasks = tasks

    async def call(self, message: ClientMessage, target: AgentTool, arguments: dict[str, Any], peer: McpPeer | None) -> bytes:
        """Returns the result after the agent's turn has ended, or after the call has become a task.

        Raises BadEnvelope, and what AgentCalls.send raises.
        """
        if target.schemas.requires_task:
            _check_declares_tasks(message)
        agent_request = AgentRequest(target.agent, build_message(target, arguments), message.trace_context, skill=target.skill)
        try:
            if _can_take_task_or_question(message, peer):
                return await self._tasks.call(message, agent_request, peer)
            turn_state = await self._agent_calls.send(message.caller, agent_request)
        except ContractBroken as broken:
            raise BadEnvelope(INVALID_PARAMS, str(broken).replace(DATA_PART_PATH, "arguments", 1)) from None
        except BadPromptAnswer as refused:
            raise BadEnvelope(INVALID_PARAMS, f"arguments.message: {refused.problem}") from None
        except (UnknownTask, TaskNotWaiting, BadMessage):
            raise BadEnvelope(INVALID_PARAMS, NO_SUCH_TASK_TEXT) from None
        result = tool_result(TaskRecord(turn_state.row, turn_state.events), message.version)
        return encode({"resultType": "complete", **result} if message.is_modern else result)


def build_message(target: AgentTool, arguments: dict[str, Any]) -> Message:
    """Builds the message for the agent: in a new task, in a conversation, or as the answer to a question. Raises BadEnvelope."""
    metadata: dict[str, Any] = {SKILL_SELECTION: {"skillId": target.skill}} if target.skill else {}
    more: Mapping[str, Any] = {"metadata": metadata} if metadata else {}
    if target.schemas.input_schema is not None:
        return Message(new_id("m"), Role.USER, (Part(data=arguments, media_type="application/json"),), **more)
    text, ids = arguments.get("message"), {name: arguments.get(name, "") for name in ID_ARGUMENTS}
    texts = all(isinstance(one, str) for one in ids.values())
    if not isinstance(text, str) or not text or not texts or arguments.keys() - {"message", *ID_ARGUMENTS}:
        raise BadEnvelope(INVALID_PARAMS, "an agent takes message (string), optionally context_id and task_id (strings), and nothing else")
    for name, one in ids.items():
        if len(one) > ID_LIMIT or not one.isprintable():
            raise BadEnvelope(INVALID_PARAMS, f"{name} is longer than {ID_LIMIT}, or has unprintable characters")
    return Message(message_id=new_id("m"), role=Role.USER, parts=(Part(text=text),), **ids, **more)


def _can_take_task_or_question(message: ClientMessage, peer: McpPeer | None) -> bool:
    """Returns whether the client supports tasks, or can be asked the agent's questions."""
    if not message.is_modern:
        return isinstance(message.params.get("task"), dict) or (peer is not None and "elicitation" in peer.capabilities)
    capabilities = message.capabilities
    return bool(capabilities) and ("elicitation" in capabilities or declares_tasks(capabilities))


def _check_declares_tasks(message: ClientMessage) -> None:
    """Raises BadEnvelope for a client without tasks: -32021 in 2026-07-28, -32601 in 2025-11-25."""
    if message.is_modern:
        check_declares_tasks(message.capabilities, NEEDS_TASKS_TEXT)
    elif not isinstance(message.params.get("task"), dict):
        raise BadEnvelope(-32601, NEEDS_TASKS_TEXT, status=200)
