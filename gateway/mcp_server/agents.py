"""Agents as tools: a call becomes a message to the agent, and its task becomes the result."""

from typing import Any

import msgspec
from msgspec import UNSET

from adapters.a2a_wire.v1 import ID_LIMIT, BadMessage
from adapters.task import Message, Part, Role, text_of
from gateway.broker import Broker, Sending
from gateway.mcp_server.asked import Asked
from gateway.mcp_server.modern import INVALID_PARAMS, BadEnvelope
from gateway.mcp_server.tools import AgentTool
from gateway.tasks import TaskEnded, UnknownTask, fold
from gateway.turns import Turned
from policies.ids import new_id

IDS = ("context_id", "task_id")
NO_SUCH_TASK = "arguments.task_id names no task of this agent that waits for an answer in this conversation"
encode = msgspec.json.Encoder().encode


class Agents:
    """Calls them."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def call(self, asked: Asked, target: AgentTool, arguments: dict[str, Any]) -> bytes:
        """Waits until the agent ends its turn. Raises BadEnvelope and what the broker raises."""
        message = read_message(arguments)
        try:
            turned = await self._broker.send(asked.caller, Sending(target.agent, message, asked.trail, skill=target.skill))
        except (UnknownTask, TaskEnded, BadMessage):
            raise BadEnvelope(INVALID_PARAMS, NO_SUCH_TASK) from None
        return _result(turned, asked.modern)


def read_message(arguments: dict[str, Any]) -> Message:
    """What the agent is told: in a new task, in a conversation, or in answer to a question. Raises BadEnvelope."""
    text, ids = arguments.get("message"), {name: arguments.get(name, "") for name in IDS}
    texts = all(isinstance(one, str) for one in ids.values())
    if not isinstance(text, str) or not text or not texts or arguments.keys() - {"message", *IDS}:
        raise BadEnvelope(INVALID_PARAMS, "an agent takes message (text) and optionally context_id and task_id (texts), and nothing else")
    for name, one in ids.items():
        if len(one) > ID_LIMIT or not one.isprintable():
            raise BadEnvelope(INVALID_PARAMS, f"{name} is longer than {ID_LIMIT}, or has characters that can't be seen")
    return Message(message_id=new_id("m"), role=Role.USER, parts=(Part(text=text),), **ids)


def _result(turned: Turned, is_modern: bool) -> bytes:
    """An agent's task as a tool result: its text, its data, and the task for whoever wants more. A task that failed is an error result."""
    task = fold(turned.row, turned.events)
    status = task.status.message if isinstance(task.status.message, Message) else None
    said = [artifact.parts for artifact in task.artifacts]
    if turned.reply is not None:
        said.append(turned.reply.parts)
    elif status is not None:
        said.append(status.parts)
    text = "\n".join(part for part in map(text_of, said) if part)
    data = [part.data for parts in said for part in parts if part.data is not UNSET]
    content: dict[str, Any] = {"task_id": task.id, "context_id": task.context_id, "state": task.status.state.value, "text": text}
    failed = turned.row.ended and task.status.state.value != "TASK_STATE_COMPLETED"
    shown = [{"type": "text", "text": text}, *({"type": "text", "text": encode(each).decode()} for each in data)]
    result = {"content": shown, "structuredContent": content | ({"data": data} if data else {}), "isError": failed}
    return encode({"resultType": "complete", **result} if is_modern else result)
