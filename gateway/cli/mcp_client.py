"""The MCP client of the command line, on the official SDK. Only this module imports the SDK, and only when a command needs it."""

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
from gateway.cli.exit_codes import CommandError, CommandFailed
from gateway.cli.http_client import ANSWER_SECONDS, GatewayClient, error_for_document, error_for_other_service, error_for_transport
from gateway.cli.output import print_problem
from gateway.cli.terminal.elicitation import Terminal, interruptible
from gateway.cli.terminal.progress import ProgressDisplay
from gateway.cli.tokens.authorities import trusted_authorities

REVISION = "2026-07-28"  # a stateless revision, so no handshake is needed
PAGES_MAX = 100
EMPTY_META_KEY = "dev.interlock/empty"  # why a list is empty, where the token is the reason
READ_SECONDS_MAX = 3600.0  # seconds; comments keep streams alive, and a person may take long to answer
ACCEPTED_MEDIA_TYPES = ("application/json", "text/event-stream")
Result = TypeVar("Result")


class McpToolClient:
    """The tools at one MCP endpoint of the gateway. Every failure is a CommandError with what to do.

    Without a terminal no elicitation is declared, so the gateway refuses a tool that needs it before the tool runs.
    """

    def __init__(self, remote: GatewayClient, path: str, terminal: Terminal | None = None) -> None:
        self._remote = remote
        self._url = remote.url + path
        self._terminal = terminal
        for name in ("mcp", "client"):  # the SDK's loggers; relevant problems become a CommandError
            logging.getLogger(name).propagate = False
            logging.getLogger(name).addHandler(logging.NullHandler())
        self._http_error: CommandError | None = None  # the error of the last HTTP answer

    def list_tools(self) -> list[dict[str, Any]]:
        """Returns every tool that the person may call, as MCP's JSON."""
        return self._run(self._list_tools(), "")

    def call_tool(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Returns the result as MCP's JSON. The caller checks `isError`."""
        return self._run(self._call_tool(tool, arguments), tool)

    def _run(self, work: Coroutine[Any, Any, Result], tool: str) -> Result:
        try:
            return asyncio.run(work)
        except* (CommandError, MCPError, httpx2.HTTPError, httpx2.InvalidURL, ValidationError, UnicodeError) as group:
            failure = group
        raise self._error_for(_root_cause(failure), tool) from None

    async def _list_tools(self) -> list[dict[str, Any]]:
        with ProgressDisplay("asking…") as waiting:
            async with self._client(waiting, "") as client:
                return [_to_wire(tool) async for tool in _list_all(client)]

    async def _call_tool(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Finds the tool in the list first, since its schemas define which arguments are sent as headers, and the form of its result."""
        with ProgressDisplay(f"calling {tool}…") as waiting:
            async with self._client(waiting, tool) as client:
                async for listed in _list_all(client):
                    if listed.name == tool:
                        break
                try:
                    return _to_wire(await client.call_tool(tool, arguments, progress_callback=waiting.on_progress))
                except RuntimeError as error:  # the SDK raises it for a result that breaks the output schema, and for endless questions
                    raise CommandFailed(f"{tool} was called, but its answer can't be used: {error}") from error

    @asynccontextmanager
    async def _client(self, waiting: ProgressDisplay, tool: str) -> AsyncIterator[Client]:
        timeout = httpx2.Timeout(ANSWER_SECONDS, connect=5.0)
        async with (
            httpx2.AsyncClient(
                headers=self._remote.headers,
                timeout=timeout,
                verify=trusted_authorities(self._url),
                trust_env=False,
                event_hooks={"response": [self._record_http_error]},
            ) as http,
            Client(
                streamable_http_client(self._url, http_client=http, max_sse_event_size=None),
                mode=REVISION,
                read_timeout_seconds=READ_SECONDS_MAX,
                client_info=Implementation(name="interlock", version=VERSION),
                elicitation_callback=None if self._terminal is None else _TerminalElicitation(self._terminal, waiting, tool),
            ) as client,
        ):
            yield client

    async def _record_http_error(self, response: httpx2.Response) -> None:
        """Keeps the error of an HTTP answer, since the SDK reports only that there was one."""
        if not response.is_success:
            self._http_error = self._remote.error_for_response(response.status_code, await response.aread())
        elif not response.headers.get("content-type", "").startswith(ACCEPTED_MEDIA_TYPES):
            self._http_error = error_for_other_service(self._remote.url, "what it answers is not JSON")
        else:
            self._http_error = None

    def _error_for(self, error: Exception, tool: str) -> CommandError:
        match error:
            case CommandError():
                return error
            case MCPError(code=code, data=data) if code == MISSING_REQUIRED_CLIENT_CAPABILITY:
                return _error_for_missing_capability(tool, data)
            case MCPError(code=code) if code == CONNECTION_CLOSED:
                return CommandFailed("the answer ended before the result arrived", "try again; interlock task list shows what was started")
            case MCPError() | ValidationError() if self._http_error is not None:
                return self._http_error
            case MCPError(code=code) if code != PARSE_ERROR:
                return error_for_document({"error": {"code": error.code, "message": error.message, "data": error.data}}, 200)
            case MCPError() | ValidationError():
                return error_for_other_service(self._remote.url, "what it answers is not MCP")
        return error_for_transport(self._remote.url, error, httpx2)


class _TerminalElicitation:
    """Elicitation at the terminal. Concurrent questions are asked one by one, since each blocks the event loop."""

    def __init__(self, terminal: Terminal, waiting: ProgressDisplay, tool: str) -> None:
        self._terminal = terminal
        self._waiting = waiting
        self._tool = tool

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        with self._waiting.pause(), interruptible():
            if isinstance(params, ElicitRequestURLParams):
                return _elicit_result(self._terminal.ask_to_open(self._tool, params.message, params.url))
            return _elicit_result(*self._terminal.ask_form(self._tool, params.message, params.requested_schema))


def _elicit_result(action: Any, content: dict[str, Any] | None = None) -> ElicitResult:
    return ElicitResult(action=action, content=content)


def _error_for_missing_capability(tool: str, data: Any) -> CommandError:
    """Returns the error for a missing client capability (MCP 2026-07-28). The gateway has done nothing yet."""
    needed = data.get("requiredCapabilities") if isinstance(data, dict) else None
    names = ", ".join(needed) if isinstance(needed, dict) and needed else "more"
    if names == "elicitation":
        todo = "call it where standard input and standard error are a terminal"
        return CommandFailed(f"{tool} asks the person that calls it, and there is no terminal to ask at", todo)
    return CommandFailed(
        f"{tool} needs client capabilities that this command lacks: {names}", "call it from an MCP client that supports it"
    )


async def _list_all(client: Client) -> AsyncIterator[Tool]:
    cursor: str | None = None
    for _ in range(PAGES_MAX):
        page = await client.list_tools(cursor=cursor)
        if page.meta and isinstance(reason := page.meta.get(EMPTY_META_KEY), dict):
            print_problem(reason.get("detail", ""))
        for tool in page.tools:
            yield tool
        cursor = page.next_cursor
        if not cursor:
            return


def _to_wire(model: BaseModel) -> dict[str, Any]:
    """Returns the model as it was received."""
    return model.model_dump(by_alias=True, mode="json", exclude_unset=True)


def _root_cause(error: BaseException) -> Exception:
    """Returns the cause inside nested exception groups, a CommandError rather than an exception of the SDK."""
    while isinstance(error, BaseExceptionGroup):
        error = next((inner for inner in error.exceptions if isinstance(inner, CommandError)), error.exceptions[0])
    assert isinstance(error, Exception)
    return error
