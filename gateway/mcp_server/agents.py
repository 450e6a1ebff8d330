"""Agents as tools: a call becomes a message to the agent, and its task becomes the result."""

from typing import Any

import msgspec

from adapters.a2a_wire.v1 import ID_LIMIT
from adapters.task import Message, Part, Role, text_of
from gateway.broker import Broker, Sending
from gateway.mcp_server.asked import Asked
from gateway.mcp_server.modern import INVALID_PARAMS, BadEnvelope
from gateway.mcp_server.tools import AgentTool
from gateway.tasks import fold
from gateway.turns import Turned
from policies.ids import new_id

encode = msgspec.json.Encoder().encode


class Agents:
    """Calls them."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def call(self, asked: Asked, target: AgentTool, arguments: dict[str, Any]) -> bytes:
        """Waits until the agent ends its turn. Raises BadEnvelope and what the broker raises."""
        text, context = arguments.get("message"), arguments.get("context_id", "")
        if not isinstance(text, str) or not text or not isinstance(context, str) or arguments.keys() - {"message", "context_id"}:
            raise BadEnvelope(INVALID_PARAMS, "an agent takes message (text) and optionally context_id (text), and nothing else")
        if len(context) > ID_LIMIT or not context.isprintable():
            raise BadEnvelope(INVALID_PARAMS, f"context_id is longer than {ID_LIMIT}, or has characters that can't be seen")
        message = Message(message_id=new_id("m"), role=Role.USER, parts=(Part(text=text),), context_id=context)
        turned = await self._broker.send(asked.caller, Sending(target.agent, message, asked.trail, skill=target.skill))
        return _result(turned, asked.modern)


def _result(turned: Turned, is_modern: bool) -> bytes:
    """An agent's task as a tool result: its text, and the task for whoever wants more. A task that failed is an error result."""
    task = fold(turned.row, turned.events)
    status = task.status.message if isinstance(task.status.message, Message) else None
    said = [text_of(artifact.parts) for artifact in task.artifacts]
    if turned.reply is not None:
        said.append(text_of(turned.reply.parts))
    elif status is not None:
        said.append(text_of(status.parts))
    text = "\n".join(part for part in said if part)
    content = {"task_id": task.id, "context_id": task.context_id, "state": task.status.state.value, "text": text}
    failed = turned.row.ended and task.status.state.value != "TASK_STATE_COMPLETED"
    result = {"content": [{"type": "text", "text": text}], "structuredContent": content, "isError": failed}
    return encode({"resultType": "complete", **result} if is_modern else result)
