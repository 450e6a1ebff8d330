"""Agents built on the reference implementation, one that speaks 1.0 and one that refuses it, served on loopback."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

import uvicorn
from a2a.helpers.proto_helpers import new_data_part, new_task_from_user_message, new_text_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, Artifact, Role, TaskArtifactUpdateEvent, TaskState
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METADATA = {"step": 1}  # of the updates of `noted`
LARGE = 9 << 20  # characters of the answer to `large`


class ScriptedAgent(AgentExecutor):
    """Does what the first word of the message says: echo, pieces, noted, message, ask, auth, fail, reject, raise, hang, wait or release.

    `wait` makes its first piece, and the others once a message says `release`.
    """

    def __init__(self) -> None:
        self._released = asyncio.Event()

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        text = context.get_user_input()
        if text == "message":
            await event_queue.enqueue_event(new_text_message("just a word", role=Role.ROLE_AGENT))
            return
        task = context.current_task or new_task_from_user_message(context.message)
        if context.current_task is None:
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        if text in ("wait", "release"):
            await self.waits(text, updater)
        elif text == "noted":
            await with_metadata(updater)
        else:
            await self.act(text, context.current_task is not None, updater)

    async def act(self, text: str, resumed: bool, updater: TaskUpdater) -> None:
        if resumed:
            await updater.add_artifact([new_text_part(f"you answered: {text}")], name="answer")
            await updater.complete()
            return

        def said(words: str) -> Any:
            return updater.new_agent_message([new_text_part(words)])

        match text.split()[0]:
            case "pieces":
                await in_pieces(updater)
                await updater.complete(said("that was it"))
            case "ask":
                await updater.requires_input(said("which size?"))
            case "auth":
                await updater.requires_auth(None if "quietly" in text else said("please sign in at https://example.org"))
            case "fail":
                await updater.failed(said("the model is out"))
            case "reject":
                await updater.reject(said("not my field"))
            case "raise":
                raise RuntimeError("secret of the agent")
            case "hang":
                await updater.start_work()
                await asyncio.Event().wait()
            case _:
                await updater.add_artifact(
                    [new_text_part("x" * LARGE if text == "large" else f"echo: {text}"), new_data_part({"length": len(text)})], name="echo"
                )
                await updater.complete()

    async def waits(self, text: str, updater: TaskUpdater) -> None:
        """The words `wait` and `release`."""
        if text == "wait":
            await updater.start_work(updater.new_agent_message([new_text_part("on it")]))
            await updater.add_artifact([new_text_part("one")], artifact_id="a1", append=False, last_chunk=False)
            await self._released.wait()
            await updater.add_artifact([new_text_part("two")], artifact_id="a1", append=True, last_chunk=True)
        self._released.set()
        await updater.complete(updater.new_agent_message([new_text_part("that was it")]))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


async def in_pieces(updater: TaskUpdater) -> None:
    await updater.start_work(updater.new_agent_message([new_text_part("on it")]))
    for index, word in enumerate(("one", "two", "three")):
        await updater.add_artifact([new_text_part(word)], artifact_id="a1", append=index > 0, last_chunk=index == 2)


async def with_metadata(updater: TaskUpdater) -> None:
    """Two pieces of an artifact between status updates, each with metadata of the update: the same, and once another."""
    await updater.update_status(TaskState.TASK_STATE_WORKING, metadata=METADATA)
    for append in (False, True):
        artifact = Artifact(artifact_id="a1", parts=[new_text_part("piece")])
        update = TaskArtifactUpdateEvent(task_id=updater.task_id, context_id=updater.context_id, artifact=artifact, append=append)
        update.metadata.update(METADATA)
        await updater.event_queue.enqueue_event(update)
    await updater.update_status(TaskState.TASK_STATE_WORKING, metadata=METADATA)
    await updater.update_status(TaskState.TASK_STATE_COMPLETED, metadata={"cost": 3})


class Only03(JsonRpcDispatcher):
    """The endpoint of the reference implementation without the methods of 1.0: each is answered with -32601."""

    METHOD_TO_MODEL: dict[str, type] = {}  # noqa: RUF012  # declared so by the SDK, and only read


class Recorded:
    """An ASGI application that notes each request's headers and JSON body before it goes in."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    @property
    def methods(self) -> list[str]:
        return [request["method"] for request in self.requests]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.requests.append(json.loads(body))
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)


_KEPT: list[tuple[asyncio.AbstractEventLoop, DefaultRequestHandler]] = []


def keep_until_loop_closes(handler: DefaultRequestHandler) -> DefaultRequestHandler:
    """Keeps a handler of the SDK until its event loop is closed, which cancels the handler's tasks.

    Collected earlier, its tasks that still wait for an answer are reported as an error of the test that runs then.
    """
    _KEPT[:] = [(loop, kept) for loop, kept in _KEPT if not loop.is_closed()]
    _KEPT.append((asyncio.get_running_loop(), handler))
    return handler


def a2a_agent(version: str = "1.0", streaming: bool = True, executor: AgentExecutor | None = None) -> Recorded:
    """A scripted agent at `/`, or another. Version 0.3 refuses the methods of 1.0."""
    card = AgentCard(
        name="Scripted",
        description="Does as it is told.",
        version="1",
        supported_interfaces=[AgentInterface(url="http://agent.example/", protocol_binding="JSONRPC", protocol_version=version)],
        capabilities=AgentCapabilities(streaming=streaming),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
    )
    handler = keep_until_loop_closes(DefaultRequestHandler(executor or ScriptedAgent(), InMemoryTaskStore(), card))
    endpoint = (Only03 if version == "0.3" else JsonRpcDispatcher)(handler, enable_v0_3_compat=version == "0.3")
    return Recorded(Starlette(routes=[Route("/", endpoint.handle_requests, methods=["POST"])]))


class _Server(uvicorn.Server):
    """Leaves the signals to whoever runs the tests, and ends at once when it is told to."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.told = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.told.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes all connections without the tenth of a second that uvicorn always waits."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        for _ in range(20):
            await asyncio.sleep(0 if not self.server_state.connections else 0.005)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def loopback() -> socket.socket:
    """Listens on a free port. It says that it is TCP, or asyncio leaves Nagle's algorithm on, and each answer waits for 40 ms."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket | None = None, http: str | type[asyncio.Protocol] = "auto") -> AsyncIterator[str]:
    """Serves on a free loopback port in this event loop. The socket listens from the start, so no request comes too early."""
    listener = listener or loopback()
    server = _Server(
        uvicorn.Config(
            app, http=http, log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=1, timeout_keep_alive=3600
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = server.force_exit = True
        server.told.set()
        await task
        listener.close()
