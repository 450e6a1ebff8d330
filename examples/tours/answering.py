"""An A2A 1.0 agent that answers each message with one text, and may report what the answer has cost."""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette

from examples.on_behalf import Refused


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent says, and the usage that it reports of its model."""

    text: str
    usage: Mapping[str, Any] | None = None


Reply = Callable[[str, Mapping[str, str]], Awaitable[Answer]]  # of a message's text and the request's headers


class AnsweringAgent(AgentExecutor):
    """Ends each task with the answer, or failed with the reason of a refusal."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        try:
            answer = await self._reply(context.get_user_input(), context.call_context.state["headers"])
        except Refused as refused:
            said = f"{refused.reason} ({refused.decision_id})" if refused.decision_id else refused.reason
            await updater.failed(updater.new_agent_message([new_text_part(said)]))
            return
        await updater.add_artifact([new_text_part(answer.text)], name="answer")
        metadata = {"usage": dict(answer.usage)} if answer.usage else None
        await updater.complete(updater.new_agent_message([new_text_part(answer.text)], metadata=metadata))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


def build_agent(url: str, name: str, description: str, reply: Reply) -> Starlette:
    """The agent as an ASGI application, with its card."""
    card = AgentCard(
        name=name,
        description=description,
        version="1.0.0",
        supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0")],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="answer", name="Answer", description=description, tags=["example"])],
    )
    handler = DefaultRequestHandler(AnsweringAgent(reply), InMemoryTaskStore(), card)
    return Starlette(routes=[*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/")])
