"""The official SDK's client of MCP, at the gateway's own door: the one module that imports it, and only when a command needs it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx2
from mcp.client.client import Client
from mcp.client.session import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    PARSE_ERROR,
    ElicitRequestParams,
    ElicitRequestURLParams,
    ElicitResult,
    Implementation,
    Tool,
)
from pydantic import BaseModel, ValidationError

from adapters.version import VERSION
from gateway.cli.elicitation import Terminal, interruptible
from gateway.cli.exit_codes import Failed, Stop
from gateway.cli.http_client import ANSWER_SECONDS, NO_GATEWAY, Remote, stop_of, unreached
from gateway.cli.output import complain
from gateway.cli.progress import Waiting

REVISION = "2026-07-28"  # nothing is agreed beforehand: the gateway speaks it, and each request says all about itself
PAGES = 100
EMPTY = "dev.interlock/empty"  # why a list has nothing in it, where the token is the reason
LONGEST = 3600.0  # seconds; streams are kept alive by comments, and answers to somebody else's question are none
READABLE = ("application/json", "text/event-stream")
Result = TypeVar("Result")


class Tools:
    """The tools behind one address of the gateway. Every failure is a Stop that says what to do, as `Remote`'s are.

    Without a terminal no elicitation is declared: a tool that needs one is refused by the gateway before it runs."""

    def __init__(self, remote: Remote, path: str, terminal: Terminal | None = None) -> None:
        self._remote = remote
        self._url = remote.url + path
        self._terminal = terminal
        for name in ("mcp", "client"):  # the SDK's loggers: what a person has to know of their warnings ends a command as a Stop
            logging.getLogger(name).propagate = False
            logging.getLogger(name).addHandler(logging.NullHandler())
        self._seen: Stop | None = None  # what the latest HTTP answer means, when it is no success

    def listed(self) -> list[dict[str, Any]]:
        """Every tool that the person may call, as MCP writes it."""
        return self._run(self._listed(), "")

    def called(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The result as MCP writes it; `isError` is the reader's."""
        return self._run(self._called(tool, arguments), tool)

    def _run(self, work: Coroutine[Any, Any, Result], tool: str) -> Result:
        try:
            return asyncio.run(work)
        except* (Stop, MCPError, httpx2.HTTPError, httpx2.InvalidURL, ValidationError, UnicodeError) as group:
            failure = group
        raise self._stop_of(_first(failure), tool) from None

    async def _listed(self) -> list[dict[str, Any]]:
        with Waiting("asking…") as waiting:
            async with self._client(waiting, "") as client:
                return [_written(tool) async for tool in _every(client)]

    async def _called(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The tool is looked up first: its schemas say which arguments go into headers, and what its result must look like."""
        with Waiting(f"calling {tool}…") as waiting:
            async with self._client(waiting, tool) as client:
                async for listed in _every(client):
                    if listed.name == tool:
                        break
                try:
                    return _written(await client.call_tool(tool, arguments, progress_callback=waiting.heard))
                except RuntimeError as error:  # the SDK's: not as the output schema promises, or questions without end
                    raise Failed(f"{tool} was called, but what it answers can't be used: {error}") from error

    @asynccontextmanager
    async def _client(self, waiting: Waiting, tool: str) -> AsyncIterator[Client]:
        timeout = httpx2.Timeout(ANSWER_SECONDS, connect=5.0)
        async with (
            httpx2.AsyncClient(
                headers=self._remote.headers, timeout=timeout, trust_env=False, event_hooks={"response": [self._look_at]}
            ) as http,
            Client(
                streamable_http_client(self._url, http_client=http, max_sse_event_size=None),
                mode=REVISION,
                read_timeout_seconds=LONGEST,
                client_info=Implementation(name="interlock", version=VERSION),
                elicitation_callback=None if self._terminal is None else _Asking(self._terminal, waiting, tool),
            ) as client,
        ):
            yield client

    async def _look_at(self, response: httpx2.Response) -> None:
        """The SDK tells no more of an HTTP error than that there was one."""
        if not response.is_success:
            self._seen = self._remote.stopped(response.status_code, await response.aread())
        elif not response.headers.get("content-type", "").startswith(READABLE):
            self._seen = Failed("the answer is not JSON", NO_GATEWAY)
        else:
            self._seen = None

    def _stop_of(self, error: Exception, tool: str) -> Stop:
        match error:
            case Stop():
                return error
            case MCPError(code=code, data=data) if code == MISSING_REQUIRED_CLIENT_CAPABILITY:
                return _incapable(tool, data)
            case MCPError(code=code) if code == CONNECTION_CLOSED:
                return Failed("the answer ended before the result came", "try again; interlock task list shows what was started")
            case MCPError() | ValidationError() if self._seen is not None:
                return self._seen
            case MCPError(code=code) if code != PARSE_ERROR:
                return stop_of({"error": {"code": error.code, "message": error.message, "data": error.data}}, 200)
            case MCPError() | ValidationError():
                return Failed("the answer is not MCP", NO_GATEWAY)
        return unreached(self._remote.url, error, httpx2)


class _Asking:
    """Elicitation at the terminal. Questions that come together are asked one after the other: each holds the only thread."""

    def __init__(self, terminal: Terminal, waiting: Waiting, tool: str) -> None:
        self._terminal = terminal
        self._waiting = waiting
        self._tool = tool

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        with self._waiting.aside(), interruptible():
            if isinstance(params, ElicitRequestURLParams):
                return _done(self._terminal.address(self._tool, params.message, params.url))
            return _done(*self._terminal.form(self._tool, params.message, params.requested_schema))


def _done(action: Any, content: dict[str, Any] | None = None) -> ElicitResult:
    return ElicitResult(action=action, content=content)


def _incapable(tool: str, data: Any) -> Stop:
    """MCP 2026-07-28, missing required client capability: nothing was done yet."""
    needed = data.get("requiredCapabilities") if isinstance(data, dict) else None
    names = ", ".join(needed) if isinstance(needed, dict) and needed else "more"
    if names == "elicitation":
        todo = "call it where standard input and standard error are a terminal"
        return Failed(f"{tool} asks the person who calls it, and there is no terminal to ask at", todo)
    return Failed(f"{tool} needs of its client what this command can't give: {names}", "call it from an MCP client that supports it")


async def _every(client: Client) -> AsyncIterator[Tool]:
    cursor: str | None = None
    for _ in range(PAGES):
        page = await client.list_tools(cursor=cursor)
        if page.meta and isinstance(reason := page.meta.get(EMPTY), dict):
            complain(reason.get("detail", ""))
        for tool in page.tools:
            yield tool
        cursor = page.next_cursor
        if not cursor:
            return


def _written(model: BaseModel) -> dict[str, Any]:
    """As it stood on the wire."""
    return model.model_dump(by_alias=True, mode="json", exclude_unset=True)


def _first(error: BaseException) -> Exception:
    """What really happened, in whatever groups of tasks it came: our own word for it before the SDK's."""
    while isinstance(error, BaseExceptionGroup):
        error = next((inner for inner in error.exceptions if isinstance(inner, Stop)), error.exceptions[0])
    assert isinstance(error, Exception)
    return error
