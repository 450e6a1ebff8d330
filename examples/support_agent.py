"""A customer-service agent (A2A 1.0) that can't take orders and hands them to the sales agent, through the gateway."""

import os
import re
import uuid
from typing import Any

os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

import httpx
from a2a.helpers.proto_helpers import new_data_part, new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette
from starlette.types import ASGIApp

from examples.on_behalf import Gateway, Refused, bearer, find, refusal
from examples.serving import serve_agent

ORDER = re.compile(r"SKU-\d+")
ABOUT = "We are open from 9 to 17. Orders are welcome: 2 of SKU-7, for example."
NEEDED = "agent:sales tool:inventory.*"


class SupportAgent(AgentExecutor):
    """Answers questions itself, and passes orders on in the name of the person who asked."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        text = context.get_user_input()
        if ORDER.search(text) is None:
            await updater.add_artifact([new_text_part(ABOUT)], name="answer")
            await updater.complete()
            return
        await updater.start_work(updater.new_agent_message([new_text_part("I can't take orders myself and ask sales.")]))
        await self.report(text, context.call_context.state["headers"], updater)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()

    async def report(self, text: str, headers: dict[str, str], updater: TaskUpdater) -> None:
        """Ends the task with what sales answered, or with the reason of the refusal and the decision to ask about."""
        try:
            parts = await self.ask_sales(text, bearer(headers))
        except Refused as refused:
            said = f"Sorry, sales could not take the order. {refused.reason}"
            await updater.add_artifact([new_text_part(said), new_data_part(refused.as_data())], name="order")
            await updater.failed(updater.new_agent_message([new_text_part(said)]))
            return
        await updater.add_artifact(parts, name="order")
        await updater.complete()

    async def ask_sales(self, text: str, token: str) -> list[Any]:
        """The parts of the sales agent's answer. Raises Refused."""
        onward = await self.gateway.exchange(token, "/agents/sales", NEEDED)
        message = {"messageId": str(uuid.uuid4()), "role": "ROLE_USER", "parts": [{"text": text}]}
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
        headers = {"Authorization": f"Bearer {onward}", "A2A-Version": "1.0"}
        async with httpx.AsyncClient(timeout=60, headers=headers) as client:
            answer = (await client.post(f"{self.gateway.url}/agents/sales", json=body)).json()
        if "result" not in answer:
            raise refusal(answer)
        return outcome(answer["result"]["task"])


def outcome(task: dict[str, Any]) -> list[Any]:
    """The parts of what sales made. Raises Refused when its task did not complete, or the order it tells of is refused."""
    parts = [part for artifact in task.get("artifacts", []) for part in artifact["parts"]]
    if task["status"]["state"] != "TASK_STATE_COMPLETED" or find(parts, "order") == "refused":
        raise Refused(find(parts, "reason") or find(task["status"], "text"), find(parts, "decision_id"))
    return [new_text_part(part["text"]) if "text" in part else new_data_part(part["data"]) for part in parts]


def card(url: str) -> AgentCard:
    return AgentCard(
        name="Support",
        description="Customer service of a small furniture shop.",
        version="1.0.0",
        supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0")],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain", "application/json"],
        skills=[AgentSkill(id="help", name="Help a customer", description="Questions and requests of customers", tags=["support"])],
    )


def build(url: str, gateway: Gateway) -> ASGIApp:
    handler = DefaultRequestHandler(SupportAgent(gateway), InMemoryTaskStore(), card(url))
    return Starlette(routes=[*create_agent_card_routes(card(url)), *create_jsonrpc_routes(handler, "/")])


if __name__ == "__main__":
    serve_agent(__doc__ or "", build)
