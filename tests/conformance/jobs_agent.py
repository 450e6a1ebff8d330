"""An A2A agent whose skills are the tools that the task scenarios of MCP's kit call: quick, slow, failing, asking."""

import argparse
import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

import uvicorn
from a2a.helpers.proto_helpers import new_data_part, new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentExtension, AgentInterface, AgentSkill, Part
from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette

from gateway.ingress.mcp_server.catalogue.skill_schemas import SKILL_FORMS_EXTENSION
from registry.cards.republish import SKILL_SELECTION
from tests.fakes.waiting import until

HOST = "127.0.0.1"
LONG = 1.0  # seconds: more than the gateway waits before a call becomes a task
Arguments = Mapping[str, Any]
Job = Callable[[TaskUpdater, Arguments], Awaitable[None]]
work: Callable[[float], Awaitable[Any]] = asyncio.sleep  # what a job takes; whoever means a moment and no time puts another here


def text(words: str) -> list[Part]:
    return [new_text_part(words)]


def form(message: str, **properties: str) -> Part:
    """A question by a schema of its own."""
    schema = {"type": "object", "properties": {name: {"type": kind} for name, kind in properties.items()}, "required": [*properties]}
    return new_data_part({"message": message, "requestedSchema": schema})


async def done(task: TaskUpdater, words: str) -> None:
    await task.complete(task.new_agent_message(text(words)))


async def asks(task: TaskUpdater, *forms: Part) -> None:
    await task.requires_input(task.new_agent_message([*forms]))


async def greet(task: TaskUpdater, arguments: Arguments) -> None:
    await done(task, f"Hello, {arguments.get('name', 'you')}!")


async def slow_compute(task: TaskUpdater, arguments: Arguments) -> None:
    await work(float(arguments.get("seconds", 0)))
    await done(task, f"computed {arguments.get('label', '')}")


async def failing_job(task: TaskUpdater, arguments: Arguments) -> None:
    await work(LONG)
    await task.failed(task.new_agent_message(text("The job failed, as always.")))


async def protocol_error_job(task: TaskUpdater, arguments: Arguments) -> None:
    await work(LONG)
    raise RuntimeError("the agent breaks off in the middle")


async def confirm_delete(task: TaskUpdater, arguments: Arguments) -> None:
    await work(LONG)
    await asks(task, form(f"Delete {arguments.get('filename', 'it')}?", confirm="boolean"))


async def multi_input(task: TaskUpdater, arguments: Arguments) -> None:
    await work(LONG)
    await asks(task, form("Your name?", name="string"), form("Sure?", confirm="boolean"))


async def test_tool_with_task(task: TaskUpdater, arguments: Arguments) -> None:
    """Asks at once, before there is a task for the client."""
    await asks(task, form("Your name?", name="string"))


JOBS: dict[str, Job] = {
    job.__name__: job for job in (greet, slow_compute, failing_job, protocol_error_job, confirm_delete, multi_input, test_tool_with_task)
}
REQUIRED = ("failing_job", "test_tool_with_task")


class Jobs(AgentExecutor):
    """Runs the skill that a message names; an answer ends it, after a while, with what was answered."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        message = MessageToDict(context.message)
        task = context.current_task or new_task_from_user_message(context.message)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        if context.current_task is None:
            await event_queue.enqueue_event(task)
            await updater.start_work()
            await JOBS[message["metadata"][SKILL_SELECTION]["skillId"]](updater, message["parts"][0].get("data", {}))
        else:
            await updater.start_work()
            await work(LONG)
            await done(updater, f"answered: {[part.get('data') for part in message['parts']]}")

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


def until_there_is(file: Path) -> Callable[[float], Awaitable[None]]:
    return lambda _seconds: until(file.exists, seconds=3600, every=0.05)


def card(port: int) -> AgentCard:
    url = f"http://{HOST}:{port}/"
    forms = {name: {"inputSchema": {"type": "object"}} | ({"taskSupport": "required"} if name in REQUIRED else {}) for name in JOBS}
    extension = AgentExtension(uri=SKILL_FORMS_EXTENSION, description="What the skills take as tools", params={"skills": forms})
    return AgentCard(
        name="Jobs",
        description="Does what the task scenarios of the kit ask.",
        version="1.0.0",
        supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0")],
        capabilities=AgentCapabilities(streaming=True, extensions=[extension]),
        default_input_modes=["application/json"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id=name, name=name, description=f"The kit's {name}", tags=["kit"]) for name in JOBS],
    )


def application(port: int) -> Starlette:
    offered = card(port)
    handler = DefaultRequestHandler(Jobs(), InMemoryTaskStore(), offered)
    return Starlette(routes=[*create_agent_card_routes(offered), *create_jsonrpc_routes(handler, "/")])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--until", type=Path, help="jobs take until there is this file")
    given = parser.parse_args()
    work = until_there_is(given.until) if given.until else work
    logging.basicConfig(level=logging.ERROR)
    uvicorn.run(application(given.port), host=HOST, port=given.port, log_level="warning", timeout_graceful_shutdown=2)
