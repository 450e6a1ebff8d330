"""Requests to servers of the stateless era: the client's own envelope, the matching headers, and a stream if needed."""

from collections.abc import Callable, Mapping
from typing import Final

from adapters.contract import Call
from adapters.mcp_client.exchange.http import Exchange, McpHttp, PostRequest
from adapters.mcp_client.exchange.rounds import InputRound
from adapters.mcp_client.exchange.server_messages import ServerMessages
from adapters.mcp_client.wire.eras import modern_body, retry_body
from adapters.mcp_client.wire.messages import McpRequest, modern_headers
from adapters.mcp_client.wire.peer import McpPeer

_HEADERS_MAX: Final = 4096


class ModernRequests:
    def __init__(self, http: McpHttp, clock: Callable[[], float]) -> None:
        self._http = http
        self._clock = clock
        self._method_headers: dict[tuple[str, str], Mapping[str, str]] = {}

    async def send(self, call: Call, request: McpRequest) -> Exchange:
        """Sends one request and returns its response. Raises UpstreamFault."""
        fixed = self._method_headers.get((request.method, request.name)) or self._remember_headers(request)
        headers = {**call.headers, **request.headers, **fixed}
        return await self._http.post(call.target.url, headers, modern_body(request), request.id, call.deadline - self._clock())

    async def send_and_receive(self, call: Call, request: McpRequest, peer: McpPeer, input_round: InputRound) -> Exchange:
        """Like `send`, but passes the messages before the response to `peer`."""
        number, answers, thought = input_round
        body = retry_body(request, number, answers) if number else modern_body(request)
        expected = f"{request.id}/{number}" if number else request.id
        fixed = self._method_headers.get((request.method, request.name)) or self._remember_headers(request)
        posting = PostRequest(
            call.target.url, {**call.headers, **request.headers, **fixed}, body, expected, call.deadline + thought - self._clock()
        )
        async with ServerMessages(request, peer) as hearing:
            return await self._http.post_and_receive(posting, hearing)

    def _remember_headers(self, request: McpRequest) -> Mapping[str, str]:
        if len(self._method_headers) >= _HEADERS_MAX:
            self._method_headers.clear()
        fixed = self._method_headers[(request.method, request.name)] = modern_headers(request.method, request.name)
        return fixed
