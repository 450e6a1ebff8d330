"""What runs act on, in a process of its own that is never killed: two agents and a tool server, which record each effect durably.

`python -m tests.chaos.effects FILE` prints the addresses as one line of JSON and serves until it is ended.
"""

import asyncio
import json
import os
import random
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from a2a.helpers.proto_helpers import new_data_part, new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater

from tests.bench.echo import answer_request, body_of, reply
from tests.fakes.a2a_agents import a2a_agent, serving

LATEST = 0.25  # seconds until an agent answers
STEADY, BLUNT, SERVER = "steady", "blunt", "tools"
_SKILL = {"id": "act", "name": "Act", "description": "Does what it is told once.", "tags": ["act"]}


@dataclass(frozen=True, slots=True)
class Effect:
    """One effect. `key` is what the sender names it by: the id of an agent's message, or the argument of the tool."""

    who: str
    key: str
    said: str


class EffectFile:
    """The effects of all rounds. Each line is on the disk before its effect is answered."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, effect: Effect) -> None:
        os.write(self._file, json.dumps([effect.who, effect.key, effect.said]).encode() + b"\n")
        os.fsync(self._file)


def read_effects(path: Path) -> list[Effect]:
    """The effects in the order in which they happened."""
    return [Effect(*json.loads(line)) for line in path.read_text().splitlines()]


class SteadyAgent(AgentExecutor):
    """Streams, and knows its tasks: a gateway that lost its connection can ask for the task again."""

    def __init__(self, effects: EffectFile) -> None:
        self._effects = effects

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        self._effects.add(Effect(STEADY, context.message.message_id, context.get_user_input()))
        task = new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        await asyncio.sleep(random.uniform(0, LATEST))
        await updater.add_artifact([new_data_part({"done": context.get_user_input()})], artifact_id="answer")
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


class WithCard:
    """An agent that shows its card too: the gateway looks whether agents are there."""

    def __init__(self, name: str, app: Any) -> None:
        self._name = name
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "GET":
            address = "http://{}:{}/".format(*scope["server"])
            await reply(send, 200, json.dumps(card_of(self._name, endpoint_of(self._name, address))).encode())
        else:
            await self._app(scope, receive, send)


class BluntUpstream:
    """An agent that answers one message with one task and forgets it, and a tool server."""

    def __init__(self, effects: EffectFile) -> None:
        self._effects = effects

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers, body = dict(scope["headers"]), await body_of(receive)
        request = json.loads(body)
        if scope["path"] == "/mcp":
            if request["method"] == "tools/call":
                await self._act(Effect(SERVER, request["params"]["arguments"]["text"], ""))
            await reply(send, *answer_request("/mcp", headers, body))
            return
        if request["method"] != "SendMessage":
            error = {"code": -32001, "message": "Task not found"}
            await reply(send, 200, json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode())
            return
        message = request["params"]["message"]
        await self._act(Effect(BLUNT, message["messageId"], message["parts"][0]["text"]))
        await reply(send, *answer_request("/a2a", headers, body))

    async def _act(self, effect: Effect) -> None:
        self._effects.add(effect)
        await asyncio.sleep(random.uniform(0, LATEST))


def endpoint_of(name: str, address: str) -> str:
    """Where an agent is called whose process listens at an address."""
    return address if name == STEADY else f"{address}a2a"


def card_of(name: str, url: str) -> dict[str, Any]:
    """The card of an agent of this process."""
    return {
        "name": name,
        "description": "Does what it is told once.",
        "version": "1",
        "supportedInterfaces": [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
        "capabilities": {"streaming": name == STEADY},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [_SKILL],
    }


async def serve(path: Path) -> None:
    effects = EffectFile(path)
    async with AsyncExitStack() as stack:
        steady = await stack.enter_async_context(serving(WithCard(STEADY, a2a_agent(executor=SteadyAgent(effects)))))
        blunt = await stack.enter_async_context(serving(WithCard(BLUNT, BluntUpstream(effects))))
        print(json.dumps({STEADY: steady, BLUNT: endpoint_of(BLUNT, blunt), SERVER: f"{blunt}mcp"}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
