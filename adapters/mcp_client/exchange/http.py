"""One exchange with an MCP server over Streamable HTTP: a POST, its answer from JSON or from an event stream, and what comes before it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from msgspec import UNSET

from adapters.contract import Failure, NotSent, Unreachable, UpstreamFault
from adapters.mcp_client.wire.messages import BadAnswer, Envelope, RequestId, check_answer, read_answer, read_envelope
from adapters.upstream.egress import LIMIT, Egress, Streamed
from adapters.upstream.sse import SseReader
from policies.strict_json import LARGE, off_loop

URLS_KEPT: Final = 4096
LATE: Final = "The server did not answer in time"
CUT: Final = "The server's answer broke off"
TALKS_MAX: Final = 4000  # streams at once of requests whose client listens, and of those who only listen: behind the callers' own bounds
TALKS_PER_URL: Final = 1500
TALK_FACTOR: Final = 8  # how much longer than one answer all that a server says before it may be
RESUMED_MAX: Final = 100  # times that one answer's stream is taken up again
RETRY_MS: Final = 1000
RETRY_MAX_MS: Final = 30_000


class Hears(Protocol):
    """Takes what arrives before an answer. It may move `limit`, the time by which the answer is to be there."""

    limit: asyncio.Timeout | None

    async def heard(self, message: Envelope) -> None: ...


class Posting(NamedTuple):
    """One request: where to, what, the id of its answer, and the seconds that it may take. `resumes`: a stream may be taken up again."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    expected: RequestId
    seconds: float
    resumes: bool = False


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
        self._talks: Counter[str] = Counter()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, expected: RequestId, seconds: float) -> Exchange:
        """Sends one request and waits for its final answer. Raises UpstreamFault: not in time, cut, no answer to this request."""
        if seconds <= 0:
            raise NotSent(LATE, "the deadline has passed", Failure.LATE)
        if url in self._plain:
            fetched = await self._egress.request("POST", url, headers=headers, body=body, timeout=seconds, limit=self._limit)
            if not is_stream(fetched.headers):
                body = fetched.body
                if len(body) > LARGE:
                    return await off_loop(_exchange, body, fetched.status, fetched.headers, expected)
                return _exchange(body, fetched.status, fetched.headers, expected)
            self._plain.discard(url)
            found = await _found(SseReader(self._limit), fetched.body, expected)
            return _cut() if found is None else Exchange(fetched.status, fetched.headers, found)
        try:
            async with asyncio.timeout(seconds), self._egress.stream("POST", url, headers=headers, body=body, timeout=seconds) as answer:
                return await self._read(url, answer, expected)
        except TimeoutError as error:
            raise Unreachable(LATE, "timeout", Failure.LATE) from error

    async def converse(self, posting: Posting, ear: Hears) -> Exchange:
        """As `post`, but `ear` takes what the server sends before the answer, one message after the other."""
        if posting.seconds <= 0:
            raise NotSent(LATE, "the deadline has passed", Failure.LATE)
        cursor = _Cursor(posting.expected, self._limit, ear)
        method, headers, body = "POST", posting.headers, posting.body
        try:
            async with asyncio.timeout(posting.seconds) as ear.limit:
                for _ in range(RESUMED_MAX):
                    async with self.lasting(method, posting.url, headers, body) as answer:
                        if not is_stream(answer.headers):
                            return await self._whole(method, posting, answer)
                        found = await cursor.follow(answer)
                    if found is not None:
                        return Exchange(answer.status, answer.headers, found)
                    if not (posting.resumes and cursor.last_id):
                        return _cut()
                    await asyncio.sleep(cursor.pause)
                    method, body = "GET", b""
                    headers = {**posting.headers, "accept": "text/event-stream", "last-event-id": cursor.last_id}
        except TimeoutError as error:
            raise (UpstreamFault if cursor.heard else Unreachable)(LATE, "timeout", Failure.LATE) from error
        return _cut()

    async def _whole(self, method: str, posting: Posting, answer: Streamed) -> Exchange:
        if method == "GET":
            raise Unreachable(CUT, f"the stream is not taken up again: {answer.status}", Failure.CUT)
        exchange = await whole(answer, posting.expected, self._limit)
        self._learn(posting.url, exchange)
        return exchange

    def _learn(self, url: str, exchange: Exchange) -> None:
        if exchange.answer is not None and len(self._plain) < URLS_KEPT:
            self._plain.add(url)

    @asynccontextmanager
    async def lasting(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[Streamed]:
        """A request whose answer may take as long as it likes, among a bounded number of them."""
        if self._talks.total() >= TALKS_MAX or self._talks[url] >= TALKS_PER_URL:
            raise NotSent("Too many streams with servers are open", f"{self._talks[url]} of {self._talks.total()} with this one")
        self._talks[url] += 1
        try:
            async with self._egress.lasting().stream(method, url, headers=headers, body=body or None, timeout=0) as answer:
                yield answer
        finally:
            self._talks[url] -= 1
            if not self._talks[url]:
                del self._talks[url]

    async def tell(self, url: str, headers: Mapping[str, str], body: bytes, seconds: float) -> int:
        """Sends a notification and gives the status."""
        return (await self._egress.request("POST", url, headers=headers, body=body, timeout=seconds, limit=self._limit)).status

    async def delete(self, url: str, headers: Mapping[str, str], seconds: float) -> int:
        return (await self._egress.request("DELETE", url, headers=headers, body=None, timeout=seconds, limit=self._limit)).status

    async def _read(self, url: str, answer: Streamed, expected: RequestId) -> Exchange:
        if not is_stream(answer.headers):
            exchange = await whole(answer, expected, self._limit)
            self._learn(url, exchange)
            return exchange
        reader, size = SseReader(self._limit), 0
        async for chunk in answer:
            size += len(chunk)
            if size > self._limit:
                raise UpstreamFault("The server's answer is too large", f"more than {self._limit} bytes of events")
            found = await _found(reader, chunk, expected)
            if found is not None:
                return Exchange(answer.status, answer.headers, found)
        return _cut()


class _Cursor:
    """The place in a stream that may be cut and taken up again. All of it together is bounded."""

    def __init__(self, expected: RequestId, limit: int, ear: Hears) -> None:
        self._expected = expected
        self._limit = limit
        self._ear = ear
        self._left = limit * TALK_FACTOR
        self._retry = RETRY_MS
        self.last_id = ""
        self.heard = False

    @property
    def pause(self) -> float:
        return min(self._retry, RETRY_MAX_MS) / 1000

    async def follow(self, answer: Streamed) -> Envelope | None:
        """The answer, or None where the stream was cut and can be taken up again. Raises UpstreamFault."""
        reader = SseReader(self._limit)
        try:
            async for chunk in answer:
                self._left -= len(chunk)
                if self._left < 0:
                    raise UpstreamFault("The server's answer is too large", f"more than {self._limit * TALK_FACTOR} bytes of events")
                for event in reader.feed(chunk):
                    self.last_id = event.id
                    found = await self._take(event.data)
                    if found is not None:
                        return found
                self._retry = self._retry if reader.retry is None else reader.retry
        except Unreachable:
            if not self.last_id:
                raise
        return None

    async def _take(self, data: bytes) -> Envelope | None:
        message = await off_loop(read_envelope, data) if data else None  # 2025-11-25: an empty event only tells where to take up the stream
        if message is None:
            return None
        if message.method is UNSET:
            return check_answer(message, self._expected)
        self.heard = True
        await self._ear.heard(message)
        return None


async def whole(answer: Streamed, expected: RequestId, limit: int = LIMIT) -> Exchange:
    """An answer that is no stream."""
    body = await answer.read(limit)
    return await off_loop(_exchange, body, answer.status, answer.headers, expected)


def is_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lower().startswith("text/event-stream")


def _exchange(body: bytes, status: int, headers: Mapping[str, str], expected: RequestId) -> Exchange:
    try:
        return Exchange(status, headers, read_answer(body, expected))
    except BadAnswer:
        if status == 200:
            raise
        return Exchange(status, headers, None)


async def _found(reader: SseReader, chunk: bytes, expected: RequestId) -> Envelope | None:
    """The answer among the events that `chunk` completes; notifications are skipped."""
    for event in await off_loop(reader.feed, chunk):
        if not event.data:
            continue
        message = await off_loop(read_envelope, event.data)
        if message.method is UNSET:
            return check_answer(message, expected)
        if message.id is not None and message.method != "ping":
            raise UpstreamFault("The server asks back, which this connection did not offer", message.method)
    return None


def _cut() -> Exchange:
    raise Unreachable(CUT, "the stream ended without an answer", Failure.CUT)
