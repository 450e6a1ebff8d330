"""An agent that passes on what it is told to the agent `sales`, through the gateway, and its questions to whoever asked it."""

import os
from typing import Any

os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater

from tests.fakes.a2a_agents import a2a_agent, serving
from tests.fakes.house import House

WAITING = {"TASK_STATE_INPUT_REQUIRED", "TASK_STATE_AUTH_REQUIRED"}


class PassingOn(AgentExecutor):
    """Remembers for each task of its own the task of `sales` that asked; all of them are in one conversation with `sales`."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.context = ""
        self.asked: dict[str, str] = {}
        self.passed: list[dict[str, Any]] = []

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None and context.call_context is not None
        task = context.current_task or new_task_from_user_message(context.message)
        if context.current_task is None:
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        token = context.call_context.state["headers"]["authorization"].removeprefix("Bearer ")
        answer = await self.pass_on(token, context.get_user_input(), self.asked.pop(task.id, ""))
        state, parts = answer["status"]["state"], answer["status"].get("message", {}).get("parts", [])
        said = updater.new_agent_message([new_text_part(part["text"]) for part in parts] or [new_text_part("nothing")])
        if state in WAITING:
            self.asked[task.id] = answer["id"]
            await (updater.requires_auth(said) if state == "TASK_STATE_AUTH_REQUIRED" else updater.requires_input(said))
        elif state == "TASK_STATE_COMPLETED":
            made = [part["text"] for artifact in answer["artifacts"] for part in artifact["parts"] if "text" in part]
            await updater.add_artifact([new_text_part(text) for text in made])
            await updater.complete()
        else:
            await updater.failed(said)

    async def pass_on(self, token: str, text: str, task_id: str) -> dict[str, Any]:
        onward = await self.home.exchanged("support", token, "/agents/sales", "agent:sales")
        ids = {"contextId": self.context} | ({"taskId": task_id} if task_id else {}) if self.context else {}
        answer = await self.home.send(onward, "sales", text, **ids)
        assert "result" in answer, answer
        task: dict[str, Any] = answer["result"]["task"]
        self.context = self.context or task["contextId"]
        self.passed.append(task)
        return task

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


async def chain(home: House, support: str, sales: str) -> PassingOn:
    """`support` passes on to `sales`; each speaks the version that is given."""
    passing = PassingOn(home)
    for name, version, executor in (("support", support, passing), ("sales", sales, None)):
        url = await home.stack.enter_async_context(serving(a2a_agent(version, executor=executor)))
        await home.registered(name, url, facts={"version": version, "streaming": True})
    return passing
