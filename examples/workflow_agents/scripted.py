"""A scripted agent or tool server as an ASGI application: A2A 1.0, A2A 0.3, plain HTTP, or MCP."""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

from a2a.compat.v0_3.conversions import to_compat_agent_card
from a2a.helpers.proto_helpers import get_data_parts, new_data_part, new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from examples.serving import HOST

Given = Mapping[str, Any]
Rule = Callable[[Given], dict[str, Any]]
JSON = "application/json"


class Failed(Exception):
    """The agent can't do what it was asked; the text says why."""


class Agent(NamedTuple):
    """An agent: what its card says, and the rule that makes an answer of the data it is given. `speaks`: 1.0, 0.3 or http.

    `skill` is the id of the one skill that its card has; empty for the agent's name.
    """

    name: str
    about: str
    rule: Rule
    speaks: str = "1.0"
    skill: str = ""


class Server(NamedTuple):
    """An MCP server. `tools` makes its functions with a state of their own; the name and the docstring of each are the tool's."""

    name: str
    tools: Callable[[], list[Callable[..., Any]]]


def agent_app(agent: Agent, url: str) -> Starlette:
    """The agent at its own URL."""
    if agent.speaks == "http":
        return _plain_app(agent)
    card = _card(agent, url)
    handler = DefaultRequestHandler(_Executor(agent.rule), InMemoryTaskStore(), card)
    if agent.speaks == "1.0":
        return Starlette(routes=[*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/")])
    old_card = to_compat_agent_card(card).model_dump(mode="json", by_alias=True, exclude_none=True)

    async def show_card(_: Request) -> JSONResponse:
        return JSONResponse(old_card)

    endpoint = _Only03(handler, enable_v0_3_compat=True)
    return Starlette(routes=[Route("/.well-known/agent-card.json", show_card), Route("/", endpoint.handle_requests, methods=["POST"])])


def server_app(server: Server) -> Starlette:
    """The server at `/mcp`."""
    made = MCPServer(server.name, log_level="WARNING")
    for tool in server.tools():
        made.tool()(tool)
    return made.streamable_http_app(json_response=True, host=HOST)


def refuse(reason: str) -> ToolError:
    """The error of a tool that can't do what it was asked."""
    return ToolError(reason)


class _Executor(AgentExecutor):
    """Answers the first data of a message by the rule."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        given = _with_integers(next(iter(get_data_parts(context.message.parts)), {"text": context.get_user_input()}))
        try:
            answer = self._rule(given)
        except Failed as failed:
            await updater.failed(updater.new_agent_message([new_text_part(str(failed))]))
            return
        await updater.add_artifact([new_data_part(answer)], name="answer")
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


def _with_integers(value: Any) -> Any:
    """The value with whole numbers as integers, which protobuf has as doubles."""
    if isinstance(value, dict):
        return {name: _with_integers(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_with_integers(element) for element in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _Only03(JsonRpcDispatcher):
    """The SDK's JSON-RPC endpoint without the methods of 1.0."""

    METHOD_TO_MODEL: dict[str, type] = {}  # noqa: RUF012  # declared so by the SDK, and only read


def _card(agent: Agent, url: str) -> AgentCard:
    version = "0.3.0" if agent.speaks == "0.3" else "1.0"
    return AgentCard(
        name=agent.name,
        description=agent.about,
        version="1.0.0",
        supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version=version)],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=[JSON],
        default_output_modes=[JSON],
        skills=[AgentSkill(id=agent.skill or agent.name, name=agent.name, description=agent.about, tags=["example"])],
    )


def _plain_app(agent: Agent) -> Starlette:
    """JSON in, JSON out: what examples/workflow_agents/interlock.yaml describes as an agent of the kind `rest`."""

    async def answer(request: Request) -> JSONResponse:
        try:
            return JSONResponse(agent.rule((await request.json())["input"]))
        except Failed as failed:
            return JSONResponse({"error": str(failed)}, 422)

    return Starlette(routes=[Route("/answers", answer, methods=["POST"])])
