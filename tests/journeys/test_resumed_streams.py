"""A stream whose process ends in a rolling restart goes on at another process, by Last-Event-ID: each event once and in order."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater

from tests.fakes.a2a_agents import a2a_agent, serving
from tests.fakes.cards import streaming_card
from tests.fakes.waiting import until
from tests.journeys.kills import VERSION, Gateway, is_ready, tasks_in

END = ""
DRAIN_SECONDS = 0.5


class Speaker(AgentExecutor):
    """An agent that says each word when the test gives it, in an artifact of its own, until END."""

    def __init__(self) -> None:
        self.words: asyncio.Queue[str] = asyncio.Queue()
        self.asked = 0

    def say(self, *words: str) -> None:
        for word in words:
            self.words.put_nowait(word)

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        self.asked += 1
        task = new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        while word := await self.words.get():
            await updater.add_artifact([new_text_part(word)], artifact_id=word)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


@dataclass(slots=True)
class Follower:
    """What a client was sent, over all of its streams: the number of each event, and the event."""

    seen: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    async def read(self, answer: aiohttp.ClientResponse) -> None:
        """Reads a stream until the gateway ends it."""
        number = 0
        async for line in answer.content:
            if line.startswith(b"id:"):
                number = int(line[3:])
            elif line.startswith(b"data:"):
                self.seen.append((number, json.loads(line[5:])["result"]))

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.seen]

    @property
    def words(self) -> list[str]:
        """The words of the events, in the order in which they came."""
        pieces = [event["artifactUpdate"]["artifact"] for _, event in self.seen if "artifactUpdate" in event]
        return [part["text"] for piece in pieces for part in piece["parts"]]

    @property
    def states(self) -> list[str]:
        return [event["statusUpdate"]["status"]["state"] for _, event in self.seen if "statusUpdate" in event]

    @property
    def task(self) -> str:
        """The id of the task, which the first event of a stream has."""
        return str(self.seen[0][1]["task"]["id"])


@dataclass(frozen=True, slots=True)
class Pair:
    """Two processes of a gateway, and the agent that both call."""

    first: Gateway
    second: Gateway
    http: aiohttp.ClientSession
    agent: Speaker

    async def post(self, gateway: Gateway, method: str, params: Any, **headers: str) -> aiohttp.ClientResponse:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        token, host = self.first.tokens()["first"], urlsplit(self.first.url).netloc
        sent = {"authorization": f"Bearer {token}", "host": host, **VERSION, **headers}
        answer = await self.http.post(f"{gateway.url}/agents/speaker", json=body, headers=sent)
        assert answer.status == 200, await answer.text()
        return answer

    async def follow(self, runs_turn: Gateway) -> aiohttp.ClientResponse:
        """Returns a stream of the first process, of a task whose turn runs in the first or in the second one."""
        message = {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "speak"}]}}
        if runs_turn is self.first:
            return await self.post(self.first, "SendStreamingMessage", message)
        answer = await self.post(runs_turn, "SendMessage", {**message, "configuration": {"returnImmediately": True}})
        task = (await answer.json())["result"]["task"]["id"]
        return await self.post(self.first, "SubscribeToTask", {"id": task})

    def is_stored(self, word: str) -> bool:
        return any(word in body for _, _, log in tasks_in(self.second).values() for _, _, body in log)


@asynccontextmanager
async def pair(folder: Path, database_url: str) -> AsyncIterator[Pair]:
    agent = Speaker()
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(a2a_agent(executor=agent)))
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)))
        first = Gateway(folder, database_url, url)
        agents = [{"name": "speaker", "card": streaming_card("speaker", url, "speak")}]
        first.configure(agents=agents, servers=[], server={"public_url": first.url, "drain": DRAIN_SECONDS, "drain_delay": 0})
        built = Pair(first, first.sibling(), http, agent)
        try:
            for each in (first, built.second):
                each.start()
                await until(lambda each=each: is_ready(http, each), every=0.03)  # type: ignore[misc]  # bound for each
            yield built
        finally:
            agent.say(END)
            for each in (first, built.second):
                await asyncio.to_thread(each.stop, signal.SIGKILL)


@pytest.mark.parametrize("turn", ["of the ended process", "of the other process"])
async def test_a_stream_resumes_at_another_process_with_each_event_once(turn: str, postgres_url: str, tmp_path: Path) -> None:
    async with pair(tmp_path / "pair", postgres_url) as built:
        client = Follower()
        stream = await built.follow(built.first if turn == "of the ended process" else built.second)
        reading = asyncio.create_task(client.read(stream))
        built.agent.say("one", "two")
        await until(lambda: client.words == ["one", "two"], every=0.01)

        ended = asyncio.create_task(asyncio.to_thread(built.first.stop, signal.SIGTERM))
        built.agent.say("three")  # while the process drains, or later
        await reading
        assert await ended == 0
        built.agent.say("four")
        await until(lambda: built.is_stored("four"), every=0.03)
        assert "four" not in client.words

        resumed = await built.post(built.second, "SubscribeToTask", {"id": client.task}, **{"last-event-id": str(client.numbers[-1])})
        reading = asyncio.create_task(client.read(resumed))
        await until(lambda: "four" in client.words, every=0.01)
        built.agent.say("five", END)
        await reading

        ((state, runner, log),) = tasks_in(built.second).values()
        assert client.words == ["one", "two", "three", "four", "five"]
        assert client.numbers == list(range(client.numbers[0], len(log) + 1))
        assert (client.states[-1], state, runner) == ("TASK_STATE_COMPLETED", "TASK_STATE_COMPLETED", "")
        assert built.agent.asked == 1
