"""Streamable HTTP: POSTs a request to an MCP server, and reads the response and earlier messages from JSON or an event stream."""

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Protocol

from msgspec import UNSET, Raw, Struct

from adapters.contract import Challenged, Failure, NotSent, Unreachable, UpstreamFault
from adapters.mcp_client.wire.eras import refusal_from, translate_result
from adapters.mcp_client.wire.messages import (
    HEADER_MISMATCH,
    MISSING_CAPABILITY,
    UNSUPPORTED_VERSION,
    BadAnswer,
    Envelope,
    HeadersDiffer,
    McpAnswer,
    McpRequest,
    RequestId,
    WireError,
    check_answer,
    read_answer,
    read_envelope,
)
from adapters.upstream.egress import BODY_MAX, Egress, ResponseStream, StreamedResponse
from adapters.upstream.retry_after import add_retry_after
from adapters.upstream.sse import SseReader
from policies.strict_json import LARGE, run_in_reader, run_off_loop

URLS_MAX: Final = 4096
LATE_TEXT: Final = "The server did not answer in time"
CUT_TEXT: Final = "The server's answer was cut off"
STREAMS_MAX: Final = 4000  # concurrent streams of requests and listeners, above the limits for callers
STREAMS_PER_URL: Final = 1500
STREAM_SIZE_FACTOR: Final = 8  # the limit of a whole stream, as a multiple of that of one response
RESUMES_MAX: Final = 100  # how often the stream of one response is resumed
RETRY_MS: Final = 1000
RETRY_MAX_MS: Final = 30_000
_OTHER_ERA_STATUSES: Final = frozenset({400, 404, 405, 406})  # how a server of the other era refuses an unknown request
_OUTAGE_STATUSES: Final = frozenset({502, 503, 504})  # of proxies in front of a server that is down


class MessageSink(Protocol):
    """Receives the messages before a response. It may reschedule `timeout`, the deadline of the response."""

    timeout: asyncio.Timeout | None

    async def receive(self, message: Envelope) -> None: ...


class PostRequest(Struct, frozen=True):
    """One request: URL, headers, body, the id of its response, and its timeout. `can_resume`: a broken stream may be resumed."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    answer_id: RequestId
    seconds: float
    can_resume: bool = False


class Exchange(Struct, frozen=True):
    """A response. `answer` is None where the status is an error and the body is no JSON-RPC response."""

    status: int
    headers: Mapping[str, str]
    answer: Envelope | None


class WrongEra(Exception):
    """The server responds as one of the other era. Nothing was done for the call."""


class McpHttp:
    """Posts JSON-RPC envelopes. Reads responses as a whole from servers that responded in JSON before, which is cheaper."""

    def __init__(self, egress: Egress, limit: int = BODY_MAX) -> None:
        self._egress = egress
        self._limit = limit  # bytes of one response
        self._json_urls: set[str] = set()  # URLs that respond in JSON
        self._open_streams = StreamCounts()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, answer_id: RequestId, seconds: float) -> Exchange:
        """Sends one request and returns its response. Raises UpstreamFault for a timeout, a broken stream, or an invalid response."""
        if seconds <= 0:
            raise NotSent(LATE_TEXT, "the deadline has passed", Failure.LATE)
        if url in self._json_urls:
            fetched = await self._egress.request(
                "POST", url, headers=headers, body=body, timeout=seconds, limit=self._limit, carries_call=True
            )
            if not is_stream(fetched.headers):
                body = fetched.body
                if len(body) > LARGE:
                    return await run_in_reader(_read_exchange, body, fetched.status, fetched.headers, answer_id)
                return _read_exchange(body, fetched.status, fetched.headers, answer_id)
            self._json_urls.discard(url)
            found = await _find_answer(SseReader(self._limit), fetched.body, answer_id)
            return _raise_cut() if found is None else Exchange(fetched.status, fetched.headers, found)
        try:
            stream = self._egress.stream("POST", url, headers=headers, body=body, timeout=seconds, carries_call=True)
            async with asyncio.timeout(seconds), stream as answer:
                return await self._read_answer(url, answer, answer_id)
        except TimeoutError as error:
            raise Unreachable(LATE_TEXT, "timeout", Failure.LATE) from error

    async def post_and_receive(self, request: PostRequest, sink: MessageSink) -> Exchange:
        """Like `post`, but passes the messages before the response to `sink`, one after another."""
        if request.seconds <= 0:
            raise NotSent(LATE_TEXT, "the deadline has passed", Failure.LATE)
        began, url = time.monotonic(), request.url
        self._open_streams.add(url)
        try:
            fetched = await self._egress.for_long_streams().post_unless_events(
                url, headers=request.headers, body=request.body, seconds=request.seconds, limit=self._limit
            )
            if isinstance(fetched, ResponseStream):
                return await self._receive(request, fetched, sink, request.seconds - (time.monotonic() - began))
        except Unreachable as fault:
            raise (Unreachable(LATE_TEXT, "timeout", Failure.LATE) if fault.failure is Failure.LATE else fault) from fault
        finally:
            self._open_streams.remove(url)
        if len(fetched.body) > LARGE:
            return await run_in_reader(_read_exchange, fetched.body, fetched.status, fetched.headers, request.answer_id)
        return _read_exchange(fetched.body, fetched.status, fetched.headers, request.answer_id)

    async def _receive(self, request: PostRequest, stream: ResponseStream, sink: MessageSink, seconds: float) -> Exchange:
        """Reads a stream until the response, and resumes one that breaks."""
        cursor = _StreamCursor(request.answer_id, self._limit, sink)
        try:
            async with asyncio.timeout(seconds) as sink.timeout:
                for _ in range(RESUMES_MAX):
                    async with stream as answer:
                        if not is_stream(answer.headers):
                            raise Unreachable(CUT_TEXT, f"the stream was not resumed: {answer.status}", Failure.CUT)
                        found = await cursor.read_stream(answer)
                    if found is not None:
                        return Exchange(answer.status, answer.headers, found)
                    if not (request.can_resume and cursor.last_id):
                        return _raise_cut()
                    await asyncio.sleep(cursor.pause)
                    headers = {**request.headers, "accept": "text/event-stream", "last-event-id": cursor.last_id}
                    stream = self._egress.for_long_streams().stream("GET", request.url, headers=headers, body=None, timeout=0)
        except TimeoutError as error:
            raise (UpstreamFault if cursor.has_received else Unreachable)(LATE_TEXT, "timeout", Failure.LATE) from error
        return _raise_cut()

    def _remember_json(self, url: str, exchange: Exchange) -> None:
        if exchange.answer is not None and len(self._json_urls) < URLS_MAX:
            self._json_urls.add(url)

    def open_stream(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> "CountedStream":
        """Opens a request whose response has no time limit. Entering raises NotSent above the limits of concurrent streams."""
        posts, egress = method == "POST", self._egress.for_long_streams()  # a GET stream may serve other calls too
        stream = egress.stream(method, url, headers=headers, body=body or None, timeout=0, carries_call=posts)
        return CountedStream(stream, url, self._open_streams)

    async def notify(self, url: str, headers: Mapping[str, str], body: bytes, seconds: float) -> int:
        """Sends a notification and returns the status."""
        return (await self._egress.request("POST", url, headers=headers, body=body, timeout=seconds, limit=self._limit)).status

    async def delete(self, url: str, headers: Mapping[str, str], seconds: float) -> int:
        return (await self._egress.request("DELETE", url, headers=headers, body=None, timeout=seconds, limit=self._limit)).status

    async def _read_answer(self, url: str, answer: StreamedResponse, answer_id: RequestId) -> Exchange:
        if not is_stream(answer.headers):
            exchange = await read_whole(answer, answer_id, self._limit)
            self._remember_json(url, exchange)
            return exchange
        reader, size = SseReader(self._limit), 0
        async for chunk in answer:
            size += len(chunk)
            if size > self._limit:
                raise UpstreamFault("The server's answer is too large", f"more than {self._limit} bytes of events")
            found = await _find_answer(reader, chunk, answer_id)
            if found is not None:
                return Exchange(answer.status, answer.headers, found)
        return _raise_cut()


class StreamCounts:
    """The number of requests and listeners that may have a stream open, in all and for each URL."""

    __slots__ = ("_by_url", "_count")

    def __init__(self) -> None:
        self._count = 0
        self._by_url: dict[str, int] = {}

    def add(self, url: str) -> None:
        """Counts one more stream. Raises NotSent above the limits of concurrent streams."""
        of_url = self._by_url.get(url, 0)
        if self._count >= STREAMS_MAX or of_url >= STREAMS_PER_URL:
            raise NotSent("Too many streams with servers are open", f"{of_url} of {self._count} with this one")
        self._count += 1
        self._by_url[url] = of_url + 1

    def remove(self, url: str) -> None:
        """Counts one stream less."""
        self._count -= 1
        if self._by_url[url] == 1:
            del self._by_url[url]
        else:
            self._by_url[url] -= 1


class CountedStream:
    """The context of a stream, which counts as open, by its URL, until it is left."""

    __slots__ = ("_open_streams", "_stream", "_url")

    def __init__(self, stream: ResponseStream, url: str, open_streams: StreamCounts) -> None:
        self._stream = stream
        self._url = url
        self._open_streams = open_streams

    async def __aenter__(self) -> StreamedResponse:
        """Raises NotSent above the limits of concurrent streams, and UpstreamFault."""
        self._open_streams.add(self._url)
        try:
            return await self._stream.__aenter__()
        except BaseException:
            self._open_streams.remove(self._url)
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            await self._stream.__aexit__(kind, error, traceback)
        finally:
            self._open_streams.remove(self._url)


class _StreamCursor:
    """The position in a stream that may break and be resumed. The total size is bounded."""

    def __init__(self, answer_id: RequestId, limit: int, sink: MessageSink) -> None:
        self._answer_id = answer_id
        self._limit = limit
        self._sink = sink
        self._bytes_left = limit * STREAM_SIZE_FACTOR
        self._retry = RETRY_MS
        self.last_id = ""
        self.has_received = False

    @property
    def pause(self) -> float:
        return min(self._retry, RETRY_MAX_MS) / 1000

    async def read_stream(self, answer: StreamedResponse) -> Envelope | None:
        """The response, or None where the stream broke and can be resumed. Raises UpstreamFault."""
        reader = SseReader(self._limit)
        try:
            async for chunk in answer:
                self._bytes_left -= len(chunk)
                if self._bytes_left < 0:
                    raise UpstreamFault("The server's answer is too large", f"more than {self._limit * STREAM_SIZE_FACTOR} bytes of events")
                for event in reader.feed(chunk):
                    self.last_id = event.id
                    found = await self._read_event(event.data)
                    if found is not None:
                        return found
                self._retry = self._retry if reader.retry is None else reader.retry
        except Unreachable:
            if not self.last_id:
                raise
        return None

    async def _read_event(self, data: bytes) -> Envelope | None:
        message = await run_off_loop(read_envelope, data) if data else None  # 2025-11-25: an empty event only has the position for resuming
        if message is None:
            return None
        if message.method is UNSET:
            return check_answer(message, self._answer_id)
        self.has_received = True
        await self._sink.receive(message)
        return None


async def read_whole(answer: StreamedResponse, answer_id: RequestId, limit: int = BODY_MAX) -> Exchange:
    """Reads a response that is not a stream. Raises UpstreamFault for more than `limit` bytes and for an invalid response."""
    return await run_off_loop(_read_exchange, await answer.read(limit), answer.status, answer.headers, answer_id)


def is_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lower().startswith("text/event-stream")


def _read_exchange(body: bytes, status: int, headers: Mapping[str, str], answer_id: RequestId) -> Exchange:
    try:
        return Exchange(status, headers, read_answer(body, answer_id))
    except BadAnswer:
        if status == 200:
            raise
        return Exchange(status, headers, None)


async def _find_answer(reader: SseReader, chunk: bytes, answer_id: RequestId) -> Envelope | None:
    """The response among the events that `chunk` completes; skips notifications. Raises UpstreamFault for a request."""
    for event in await run_off_loop(reader.feed, chunk):
        if not event.data:
            continue
        message = await run_off_loop(read_envelope, event.data)
        if message.method is UNSET:
            return check_answer(message, answer_id)
        if message.id is not None and message.method != "ping":
            raise UpstreamFault("The server sent a request, which this connection does not support", message.method)
    return None


def _raise_cut() -> Exchange:
    raise Unreachable(CUT_TEXT, "the stream ended without an answer", Failure.CUT)


def client_answer(request: McpRequest, exchange: Exchange, from_modern: bool) -> McpAnswer:
    """The response for the client, if the server, of era `from_modern`, requests nothing more. Raises as McpPool.call, and WrongEra."""
    answer = exchange.answer
    if answer is not None and isinstance(answer.result, Raw) and exchange.status == 200:
        result = bytes(answer.result)
        return McpAnswer(result if request.is_modern == from_modern else translate_result(request, result, from_modern))
    raise _failure_of(request, exchange, from_modern)


def _failure_of(request: McpRequest, exchange: Exchange, from_modern: bool) -> Exception:
    """The exception for a response without a result."""
    answer, status = exchange.answer, exchange.status
    error = answer.error if answer is not None and isinstance(answer.error, WireError) else None
    detail = f"status {status}" + (f", {error.code}: {error.message[:300]}" if error else "")
    if status in (401, 403):
        return Challenged(status, exchange.headers.get("www-authenticate", ""), detail)
    if error is not None and _is_refusal(error.code, status):
        return refusal_from(request, error, detail)
    if error is not None and error.code == HEADER_MISMATCH:
        return HeadersDiffer("The server refused the headers of the gateway's request", detail)
    if (from_modern and status in _OTHER_ERA_STATUSES) or (error is not None and error.code == UNSUPPORTED_VERSION):
        return WrongEra(f"{'modern' if from_modern else 'legacy'}, {detail}")
    fault = Unreachable("The server failed", detail) if status in _OUTAGE_STATUSES else UpstreamFault("The server failed", detail)
    if status == 429:
        fault = UpstreamFault("The server is busy", detail, Failure.BUSY)
    return add_retry_after(fault, status, exchange.headers)


def _is_refusal(code: int, status: int) -> bool:
    """Whether a JSON-RPC error is about the call itself: any with status 200, else the codes of modern servers with 400 and 404."""
    if code in (HEADER_MISMATCH, UNSUPPORTED_VERSION):
        return False
    return status == 200 or code in (-32601, -32602, -32603, MISSING_CAPABILITY)
