"""Timeouts of calls that ask the user questions: while a question is open, the server's time stands still."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from adapters.contract import Call, UpstreamFault
from adapters.mcp_client.wire.messages import McpAnswer, McpRequest
from adapters.mcp_client.wire.peer import McpPeer

QUESTIONS_SECONDS = 600.0  # upper bound for all questions of one call together
LATE_TEXT = "The server did not answer in time"


class _ClockStoppingPeer:
    """Wraps an McpPeer and stops the timeout while one of its questions is open."""

    def __init__(self, peer: McpPeer, timeout: asyncio.Timeout) -> None:
        self._peer = peer
        self._timeout = timeout
        self._open_questions = 0
        self._seconds_left = 0.0

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return self._peer.capabilities

    async def notify(self, method: str, params: Raw) -> None:
        await self._peer.notify(method, params)

    async def ask(self, method: str, params: Raw) -> Raw:
        now = asyncio.get_running_loop().time
        if self._open_questions == 0:
            self._seconds_left = (self._timeout.when() or now()) - now()
            self._timeout.reschedule(None)
        self._open_questions += 1
        try:
            return await self._peer.ask(method, params)
        finally:
            self._open_questions -= 1
            if self._open_questions == 0 and not self._timeout.expired():
                self._timeout.reschedule(now() + self._seconds_left)


async def call_with_pausable_timeout(
    send: Callable[[Call, McpRequest], Awaitable[McpAnswer]], call: Call, request: McpRequest, peer: McpPeer
) -> McpAnswer:
    """Calls a server that may ask the client questions.

    Raises UpstreamFault if the server does not answer within its own time, and whatever `send` raises.
    """
    longer = msgspec.structs.replace(call, deadline=call.deadline + QUESTIONS_SECONDS)
    try:
        async with asyncio.timeout_at(call.deadline) as limit:
            return await send(longer, msgspec.structs.replace(request, peer=_ClockStoppingPeer(peer, limit)))
    except TimeoutError as error:
        raise UpstreamFault(LATE_TEXT, "timeout") from error
