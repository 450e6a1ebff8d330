"""MCP servers that are commands of the operator's configuration: one process each, started when needed, restarted with patience."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
import mcp_types as types
import msgspec
import structlog
from mcp import MCPError
from mcp.client.client import Client
from mcp.client.session import ClientSession
from mcp.client.stdio import DEFAULT_INHERITED_ENV_VARS, StdioServerParameters, stdio_client
from mcp.shared._stream_protocols import ReadStream
from mcp.shared.message import SessionMessage
from msgspec import Raw
from pydantic import RootModel, ValidationError

from adapters.contract import Call, UpstreamFault
from adapters.mcp_crossing import plain_params, result_for
from adapters.mcp_http import LATE, Exchange
from adapters.mcp_lists import list_all
from adapters.mcp_peer import Listener, Listening
from adapters.mcp_probe import Probe, probed
from adapters.mcp_wire import MODERN, BadAnswer, Envelope, McpAnswer, McpRefused, McpRequest, WireError, encode

log = structlog.get_logger()

START_SECONDS: Final = 15.0
PATIENCE_MAX: Final = 60.0  # seconds between two starts of a command that fails
STOP_SECONDS: Final = 10.0
_Listing = types.ListToolsRequest | types.ListPromptsRequest | types.ListResourcesRequest | types.ListResourceTemplatesRequest
LISTING: Final[Mapping[str, type[_Listing]]] = {
    "tools/list": types.ListToolsRequest,
    "prompts/list": types.ListPromptsRequest,
    "resources/list": types.ListResourcesRequest,
    "resources/templates/list": types.ListResourceTemplatesRequest,
}
_Incoming = SessionMessage | Exception


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. Its environment has `env` and nothing else."""

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


class _Result(RootModel[dict[str, Any]]):
    """Any result, as it came."""


class _Watched:
    """A stream of messages that tells when it ended."""

    def __init__(self, inner: ReadStream[_Incoming], ended: asyncio.Event) -> None:
        self._inner = inner
        self._ended = ended

    async def receive(self) -> _Incoming:
        try:
            return await self._inner.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._ended.set()
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Incoming:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)


@asynccontextmanager
async def _transport(command: Command, ended: asyncio.Event) -> AsyncIterator[Any]:
    """The command's two streams. What it writes to its standard error is thrown away."""
    with Path(os.devnull).open("w") as nowhere:  # noqa: ASYNC230 (the null device does not block)
        async with stdio_client(_parameters(command), nowhere) as (incoming, outgoing):
            yield _Watched(incoming, ended), outgoing


def _parameters(command: Command) -> StdioServerParameters:
    """The client library hands on HOME, PATH and others of ours, so `env` takes those away again. Raises UpstreamFault."""
    program, env = shutil.which(command.command), shutil.which("env")
    if program is None or env is None or "=" in program:
        raise UpstreamFault("The server's command can't be run", "not found")
    drop = [flag for name in DEFAULT_INHERITED_ENV_VARS if name not in command.env for flag in ("-u", name)]
    return StdioServerParameters(command=env, args=[*drop, program, *command.args], env=dict(command.env))


class _Process:
    """One command: at most one running process, used by all callers at once."""

    def __init__(self, name: str, command: Command, clock: Callable[[], float]) -> None:
        self._name = name
        self._command = command
        self._clock = clock
        self._ended = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[ClientSession] | None = None
        self._failures = 0
        self._not_before = 0.0

    async def session(self, seconds: float) -> ClientSession:
        """The open session, started where needed. Raises UpstreamFault."""
        if self._running is None or self._running.done() or self._ended.is_set():
            await self._start()
        assert self._ready is not None
        try:
            return await asyncio.wait_for(asyncio.shield(self._ready), seconds)
        except TimeoutError as error:
            raise UpstreamFault(LATE, "starting") from error

    async def _start(self) -> None:
        if self._running is not None and not self._running.done():
            await asyncio.wait([self._running], timeout=STOP_SECONDS)
            if not self._running.done() or not self._ended.is_set():
                return  # still stopping, or somebody else started it meanwhile
        if self._clock() < self._not_before:
            raise UpstreamFault("The server's command keeps failing", f"{self._failures} times")
        self._ended.clear()
        self._ready = asyncio.get_running_loop().create_future()
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())  # nobody may be waiting
        self._running = asyncio.create_task(self._run(self._ready))

    async def _run(self, ready: asyncio.Future[ClientSession]) -> None:
        """The root of the process's task: from its start to its end."""
        began = self._clock()
        try:
            async with asyncio.timeout(START_SECONDS) as start, Client(_transport(self._command, self._ended), cache=None) as client:
                start.reschedule(None)
                ready.set_result(client.session)
                await self._ended.wait()
        except Exception as error:  # noqa: BLE001 (a task's root: whatever a foreign program does to the client library ends here)
            log.warning("mcp.stdio.ended", server=self._name, error=type(error).__name__)
        finally:
            self._ended.set()
            self._failures = 0 if self._clock() - began > PATIENCE_MAX else self._failures + 1
            self._not_before = self._clock() + min(PATIENCE_MAX, 2.0 ** (self._failures - 1)) if self._failures > 1 else 0.0
            if not ready.done():
                ready.set_exception(UpstreamFault("The server's command does not start", "no handshake"))

    async def stop(self) -> None:
        self._ended.set()
        if self._running is not None:
            if self._ready is not None and not self._ready.done():
                self._running.cancel()
            await asyncio.wait([self._running], timeout=STOP_SECONDS)


class StdioServers:
    """Speaks to the commands of the configuration file, by the names of their registrations; `clock` counts the deadlines' seconds.

    A process serves all users: whoever configures a command decides that its tools are the same for everybody.
    """

    def __init__(self, commands: Mapping[str, Command], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._processes = {name: _Process(name, command, clock) for name, command in commands.items()}

    async def probe(self, name: str) -> Probe:
        """Era, version and tools. Raises UpstreamFault."""
        session = await self._of(name).session(START_SECONDS)

        async def page(method: str, params: dict[str, Any]) -> Exchange:
            request = LISTING[method](params=types.PaginatedRequestParams(**params))
            try:
                result = await session.send_request(request, _Result, START_SECONDS)
            except MCPError as error:
                return Exchange(200, {}, Envelope("2.0", 0, error=WireError(error.code)))
            except ValidationError as error:
                raise BadAnswer("The server's list is not valid", type(error).__name__) from None
            return Exchange(200, {}, Envelope("2.0", 0, result=Raw(encode(result.root))))

        listed = await list_all(page)
        version = session.protocol_version or ""
        return probed("modern" if version == MODERN else "legacy", version, listed)

    async def call(self, call: Call, request: McpRequest) -> McpAnswer:
        """As McpPool.call."""
        process = self._of(call.target.name)
        session = await process.session(call.deadline - self._clock())
        wanted = _wanted(request)
        try:
            result = await session.send_request(wanted, _Result, max(call.deadline - self._clock(), 0.001))
        except MCPError as error:
            raise _fault(error) from None
        except ValidationError as error:
            raise BadAnswer("The server's answer is not a result", type(error).__name__) from None
        return McpAnswer(result_for(request, encode(result.root), session.protocol_version == MODERN))

    async def listen(self, call: Call, wanted: Listening, listener: Listener, session: str = "") -> None:
        """As McpTools.listen."""
        raise UpstreamFault("The server can't be listened to", "not yet")

    async def close(self) -> None:
        await asyncio.gather(*(process.stop() for process in self._processes.values()))

    def _of(self, name: str) -> _Process:
        try:
            return self._processes[name]
        except KeyError:
            raise UpstreamFault("No command is configured for this server", name) from None


def _wanted(request: McpRequest) -> types.CallToolRequest:
    params = msgspec.json.decode(encode(plain_params(request)))
    try:
        return types.CallToolRequest(params=types.CallToolRequestParams.model_validate(params, by_name=False))
    except ValidationError as error:
        raise McpRefused(-32602, type(error).__name__) from None


def _fault(error: MCPError) -> UpstreamFault | McpRefused:
    if error.code == types.REQUEST_TIMEOUT:
        return UpstreamFault(LATE, "timeout")
    if error.code == types.CONNECTION_CLOSED:
        return UpstreamFault("The server's process ended", "connection closed")
    return McpRefused(error.code, error.message[:300])
