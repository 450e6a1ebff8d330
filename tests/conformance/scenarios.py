"""What the example agent does with each message: the behaviour that the A2A kit asks for by prefixes of messageIds."""

import asyncio
from collections.abc import Awaitable, Callable

from a2a.helpers.proto_helpers import new_data_part, new_raw_part, new_task_from_user_message, new_text_part, new_url_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater
from a2a.types import Part

Act = Callable[[TaskUpdater], Awaitable[None]]
LONG = 4.0  # seconds that the long-running task works: twice what the kit waits for one event
FILE = new_raw_part(b"tck", media_type="text/plain", filename="output.txt")
URL = new_url_part("https://example.com/output.txt", media_type="text/plain", filename="output.txt")


def artifact(part: Part) -> Act:
    async def act(task: TaskUpdater) -> None:
        await task.add_artifact([part])

    return act


def completed(text: str) -> Act:
    async def act(task: TaskUpdater) -> None:
        await task.complete(task.new_agent_message([new_text_part(text)]))

    return act


async def chunks(task: TaskUpdater) -> None:
    await task.add_artifact([new_text_part("chunk-1 ")], artifact_id="chunked", append=False, last_chunk=False)
    await task.add_artifact([new_text_part("chunk-2")], artifact_id="chunked", append=True, last_chunk=True)


async def waited(_: TaskUpdater) -> None:
    await asyncio.sleep(LONG)


def streamed(*acts: Act) -> tuple[Act, ...]:
    return (TaskUpdater.start_work, *acts, TaskUpdater.complete)


# The longest prefix that fits decides.
SCENARIOS: dict[str, tuple[Act, ...]] = {
    "tck-complete-task": (completed("Hello from TCK"),),
    "tck-artifact-text": (artifact(new_text_part("Generated text content")), TaskUpdater.complete),
    "tck-artifact-file": (artifact(FILE), TaskUpdater.complete),
    "tck-artifact-file-url": (artifact(URL), TaskUpdater.complete),
    "tck-artifact-data": (artifact(new_data_part({"key": "value", "count": 42})), TaskUpdater.complete),
    "tck-input-required": (TaskUpdater.requires_input,),
    "tck-reject-task": (TaskUpdater.reject,),
    "tck-stream-001": streamed(artifact(new_text_part("Stream hello from TCK"))),
    "tck-stream-002": (TaskUpdater.complete,),
    "tck-stream-003": streamed(artifact(new_text_part("Stream task lifecycle"))),
    "tck-stream-ordering-001": streamed(artifact(new_text_part("Ordered output"))),
    "tck-stream-artifact-text": streamed(artifact(new_text_part("Streamed text content"))),
    "tck-stream-artifact-file": streamed(artifact(FILE)),
    "tck-stream-artifact-chunked": streamed(chunks),
    "test-resubscribe-message-id": streamed(waited),
}
MESSAGE_ONLY = "tck-message-response"
COMPLETE: tuple[Act, ...] = (completed("Done"),)
STAY_OPEN: tuple[Act, ...] = (TaskUpdater.requires_input,)


def acts_for(message_id: str, otherwise: tuple[Act, ...]) -> tuple[Act, ...]:
    """What is done, in this order."""
    fitting = [prefix for prefix in SCENARIOS if message_id.startswith(prefix)]
    return SCENARIOS[max(fitting, key=len)] if fitting else otherwise


class ScenarioExecutor(AgentExecutor):
    """Plays them; `otherwise` where a message names none."""

    def __init__(self, otherwise: tuple[Act, ...]) -> None:
        self._otherwise = otherwise

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        if context.message.message_id.startswith(MESSAGE_ONLY):
            answer = TaskUpdater(event_queue, "", context.context_id or "").new_agent_message([new_text_part("Direct message response")])
            await event_queue.enqueue_event(answer)
            return
        task = context.current_task or new_task_from_user_message(context.message)
        if context.current_task is None:
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        for act in acts_for(context.message.message_id, self._otherwise):
            await act(updater)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()
