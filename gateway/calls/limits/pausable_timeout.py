"""Time limits of calls that ask people: a server has its time to work, and while somebody thinks about a question it stands still."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from adapters.contract import Call, UpstreamFault
from adapters.mcp_client.wire.messages import McpAnswer, McpRequest
from adapters.mcp_client.wire.peer import Peer

PEOPLE_SECONDS = 600.0  # for which all questions of one call may take at most
LATE = "The server did not answer in time"


class _Patient:
    """A Peer whose questions stop the clock."""

    def __init__(self, peer: Peer, limit: asyncio.Timeout) -> None:
        self._peer = peer
        self._limit = limit
        self._open = 0
        self._left = 0.0

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return self._peer.capabilities

    async def notify(self, method: str, params: Raw) -> None:
        await self._peer.notify(method, params)

    async def ask(self, method: str, params: Raw) -> Raw:
        now = asyncio.get_running_loop().time
        if self._open == 0:
            self._left = (self._limit.when() or now()) - now()
            self._limit.reschedule(None)
        self._open += 1
        try:
            return await self._peer.ask(method, params)
        finally:
            self._open -= 1
            if self._open == 0 and not self._limit.expired():
                self._limit.reschedule(now() + self._left)


async def patient(send: Callable[[Call, McpRequest], Awaitable[McpAnswer]], call: Call, request: McpRequest, peer: Peer) -> McpAnswer:
    """Makes a call whose client can be asked. Raises UpstreamFault, and what `send` raises."""
    longer = msgspec.structs.replace(call, deadline=call.deadline + PEOPLE_SECONDS)
    try:
        async with asyncio.timeout_at(call.deadline) as limit:
            return await send(longer, dataclasses.replace(request, peer=_Patient(peer, limit)))
    except TimeoutError as error:
        raise UpstreamFault(LATE, "timeout") from error
