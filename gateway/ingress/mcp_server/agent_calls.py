"""Agents as tools: a call becomes a message to the agent, and its task becomes the result, at once or later."""

from collections.abc import Mapping
from typing import Any

import msgspec

from adapters.a2a_client.wire.v1 import ID_LIMIT, BadMessage
from adapters.mcp_client.wire.messages import INVALID_PARAMS
from adapters.mcp_client.wire.peer import Peer
from adapters.task import Message, Part, Role
from gateway.calls.broker import Broker, Sending
from gateway.ingress.mcp_server.catalogue.tools import AgentTool
from gateway.ingress.mcp_server.protocol.message import Asked
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.tasks.agent_tasks import AgentTasks
from gateway.ingress.mcp_server.tasks.wire import check_declared, takes_tasks, tool_result
from gateway.tasks.contracts.prompts import BadAnswer
from gateway.tasks.contracts.skills import ContractBroken
from gateway.tasks.log import TaskEnded, TaskRecord, UnknownTask
from policies.ids import new_id
from registry.cards.republish import SKILL_SELECTION

PART = "message.parts[0].data"
IDS = ("context_id", "task_id")
NO_SUCH_TASK = "arguments.task_id names no task of this agent that waits for an answer in this conversation"
NEEDS_TASKS = "this tool can only be called by clients that take tasks"
encode = msgspec.json.Encoder().encode


class Agents:
    """Calls them."""

    def __init__(self, broker: Broker, tasks: AgentTasks) -> None:
        self._broker = broker
        self._tasks = tasks

    async def call(self, asked: Asked, target: AgentTool, arguments: dict[str, Any], peer: Peer | None) -> bytes:
        """Waits until the agent ends its turn, or until the call becomes a task. Raises BadEnvelope and what the broker raises."""
        if target.form.required:
            _check_takes_tasks(asked)
        sending = Sending(target.agent, read_message(target, arguments), asked.trail, skill=target.skill)
        try:
            if _wants_more(asked, peer):
                return await self._tasks.call(asked, sending, peer)
            turned = await self._broker.send(asked.caller, sending)
        except ContractBroken as broken:
            raise BadEnvelope(INVALID_PARAMS, str(broken).replace(PART, "arguments", 1)) from None
        except BadAnswer as refused:
            raise BadEnvelope(INVALID_PARAMS, f"arguments.message: {refused.problem}") from None
        except (UnknownTask, TaskEnded, BadMessage):
            raise BadEnvelope(INVALID_PARAMS, NO_SUCH_TASK) from None
        result = tool_result(TaskRecord(turned.row, turned.events), asked.version)
        return encode({"resultType": "complete", **result} if asked.modern else result)


def read_message(target: AgentTool, arguments: dict[str, Any]) -> Message:
    """What the agent is told: in a new task, in a conversation, or in answer to a question. Raises BadEnvelope."""
    metadata: dict[str, Any] = {SKILL_SELECTION: {"skillId": target.skill}} if target.skill else {}
    more: Mapping[str, Any] = {"metadata": metadata} if metadata else {}
    if target.form.schema is not None:
        return Message(new_id("m"), Role.USER, (Part(data=arguments, media_type="application/json"),), **more)
    text, ids = arguments.get("message"), {name: arguments.get(name, "") for name in IDS}
    texts = all(isinstance(one, str) for one in ids.values())
    if not isinstance(text, str) or not text or not texts or arguments.keys() - {"message", *IDS}:
        raise BadEnvelope(INVALID_PARAMS, "an agent takes message (text) and optionally context_id and task_id (texts), and nothing else")
    for name, one in ids.items():
        if len(one) > ID_LIMIT or not one.isprintable():
            raise BadEnvelope(INVALID_PARAMS, f"{name} is longer than {ID_LIMIT}, or has characters that can't be seen")
    return Message(message_id=new_id("m"), role=Role.USER, parts=(Part(text=text),), **ids, **more)


def _wants_more(asked: Asked, peer: Peer | None) -> bool:
    """Whether the client takes a task, or can be asked what the agent asks."""
    if not asked.modern:
        return isinstance(asked.params.get("task"), dict) or (peer is not None and "elicitation" in peer.capabilities)
    capabilities = asked.capabilities
    return bool(capabilities) and ("elicitation" in capabilities or takes_tasks(capabilities))


def _check_takes_tasks(asked: Asked) -> None:
    """Raises BadEnvelope: -32021 in 2026-07-28, -32601 in 2025-11-25."""
    if asked.modern:
        check_declared(asked.capabilities, NEEDS_TASKS)
    elif not isinstance(asked.params.get("task"), dict):
        raise BadEnvelope(-32601, NEEDS_TASKS, status=200)
