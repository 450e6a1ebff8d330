"""One exchange with an MCP server over Streamable HTTP: a POST, and its answer from JSON or from an event stream."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from msgspec import UNSET

from adapters.contract import UpstreamFault
from adapters.egress import LIMIT, Egress, Streamed
from adapters.mcp_wire import BadAnswer, Envelope, RequestId, check_answer, read_answer, read_envelope
from adapters.sse import SseReader

URLS_KEPT: Final = 4096
LATE: Final = "The server did not answer in time"
CUT: Final = "The server's answer broke off"


@dataclass(frozen=True, slots=True)
class Exchange:
    """`answer` is None where the status is an error and the body is no JSON-RPC answer."""

    status: int
    headers: Mapping[str, str]
    answer: Envelope | None


class McpHttp:
    """Posts envelopes. A server that once answered in JSON is asked for whole answers, which is the cheapest way."""

    def __init__(self, egress: Egress, limit: int = LIMIT) -> None:
        self._egress = egress
        self._limit = limit  # bytes of one answer
        self._plain: set[str] = set()  # URLs that answer in JSON

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, expected: RequestId, seconds: float) -> Exchange:
        """Sends one request and waits for its final answer. Raises UpstreamFault: not in time, cut, no answer to this request."""
        if seconds <= 0:
            raise UpstreamFault(LATE, "the deadline has passed")
        if url in self._plain:
            whole = await self._egress.request("POST", url, headers=headers, body=body, timeout=seconds, limit=self._limit)
            if not _is_stream(whole.headers):
                return _exchange(whole.status, whole.headers, whole.body, expected)
            self._plain.discard(url)
            found = _found(SseReader(self._limit), whole.body, expected)
            return _cut() if found is None else Exchange(whole.status, whole.headers, found)
        try:
            async with asyncio.timeout(seconds), self._egress.stream("POST", url, headers=headers, body=body, timeout=seconds) as answer:
                return await self._read(url, answer, expected)
        except TimeoutError as error:
            raise UpstreamFault(LATE, "timeout") from error

    async def tell(self, url: str, headers: Mapping[str, str], body: bytes, seconds: float) -> int:
        """Sends a notification and gives the status."""
        return (await self._egress.request("POST", url, headers=headers, body=body, timeout=seconds, limit=self._limit)).status

    async def delete(self, url: str, headers: Mapping[str, str], seconds: float) -> int:
        return (await self._egress.request("DELETE", url, headers=headers, body=None, timeout=seconds, limit=self._limit)).status

    async def _read(self, url: str, answer: Streamed, expected: RequestId) -> Exchange:
        if not _is_stream(answer.headers):
            exchange = _exchange(answer.status, answer.headers, await answer.read(self._limit), expected)
            if exchange.answer is not None and len(self._plain) < URLS_KEPT:
                self._plain.add(url)
            return exchange
        reader, size = SseReader(self._limit), 0
        async for chunk in answer:
            size += len(chunk)
            if size > self._limit:
                raise UpstreamFault("The server's answer is too large", f"more than {self._limit} bytes of events")
            found = _found(reader, chunk, expected)
            if found is not None:
                return Exchange(answer.status, answer.headers, found)
        return _cut()


def _is_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lower().startswith("text/event-stream")


def _exchange(status: int, headers: Mapping[str, str], body: bytes, expected: RequestId) -> Exchange:
    try:
        return Exchange(status, headers, read_answer(body, expected))
    except BadAnswer:
        if status == 200:
            raise
        return Exchange(status, headers, None)


def _found(reader: SseReader, chunk: bytes, expected: RequestId) -> Envelope | None:
    """The answer among the events that `chunk` completes; notifications are skipped."""
    for event in reader.feed(chunk):
        message = read_envelope(event.data)
        if message.method is UNSET:
            return check_answer(message, expected)
        if message.id is not None:
            raise UpstreamFault("The server asks back, which this connection did not offer", message.method)
    return None


def _cut() -> Exchange:
    raise UpstreamFault(CUT, "the stream ended without an answer")
