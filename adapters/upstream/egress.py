"""The egress client for every outgoing request: vetted and pinned addresses, no redirects, bounded responses."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from ssl import SSLContext, create_default_context
from typing import NamedTuple

from yarl import URL

from adapters.contract import Failure, Unreachable, UpstreamFault
from adapters.redaction.exchanges import CURRENT_RECORDER, ExchangeRecord, begin_exchange
from adapters.upstream.host_names import SystemResolver
from adapters.upstream.http1.connection import HttpTarget
from adapters.upstream.http1.pool import ConnectionPool, ConnectOptions
from adapters.upstream.http1.responses import ConnectionDropped, HttpResponse, NotConnected, OpenedResponse, ResponseTooLarge
from adapters.upstream.targets import EgressRefused, TargetPolicy

__all__ = ["Egress", "EgressRefused", "HttpResponse", "Lookup", "ResponseStream", "StreamedResponse", "VettedTarget"]

CONNECTIONS_MAX = 400
CONNECTIONS_PER_HOST = 150  # so that a hanging host does not take all of them
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 4.0  # below the 5 s after which common servers close a connection, so that a request seldom meets a closed one
URLS_MAX = 4096
TIMEOUT_SECONDS = 60.0
ENDLESS_SECONDS = 30 * 86_400.0  # of a response without a time limit of its own
BODY_MAX = 8 << 20
EVENT_STREAM = "text/event-stream"
POOL_ERRORS = (NotConnected, ResponseTooLarge, OSError, ValueError)  # what a request of a ConnectionPool raises

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]


class VettedTarget(NamedTuple):
    """A target and its current, vetted addresses: connect only to these."""

    url: URL
    addresses: tuple[str, ...]


class _VettedResolver:
    """Resolves once and vets every address; the client connects only to these."""

    def __init__(self, targets: TargetPolicy, lookup: Lookup) -> None:
        self._targets = targets
        self._lookup = lookup

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        addresses = list(dict.fromkeys(await self._lookup(host, port)))
        if not addresses:
            raise OSError("the name has no address")
        self._targets.vet_addresses(host, port, addresses)
        return addresses


class Egress:
    """Sends requests to targets that are public or that the operator allowed.

    Raises EgressRefused before anything is sent, and UpstreamFault for any later error.
    """

    def __init__(
        self,
        allow: Sequence[str] = (),
        *,
        lookup: Lookup | None = None,
        tls: SSLContext | None = None,
        connections: tuple[int, int] = (CONNECTIONS_MAX, CONNECTIONS_PER_HOST),
    ) -> None:
        """`allow`: networks and host names that may be private. `tls` replaces the system's certificate authorities.

        `connections`: the maximum in total, and for one host; 0: unlimited.
        """
        self._allow = allow
        self._lookup = lookup or SystemResolver()
        self._targets = TargetPolicy(allow)
        self._resolver = _VettedResolver(self._targets, self._lookup)
        self._tls = tls
        self._checked_urls: dict[str, URL] = {}
        self._request_targets: dict[str, HttpTarget] = {}
        options = ConnectOptions(self._resolver.resolve, self._tls_context, CONNECT_SECONDS, IDLE_SECONDS)
        self._pool = ConnectionPool(options, connections[0], connections[1])
        self._stream_pool = ConnectionPool(options, connections[0], connections[1])
        self._stream_egress: Egress | None = None

    def for_long_streams(self) -> "Egress":
        """A client with the same guard for long streams, which would take the connections of short requests. The caller limits them."""
        if self._stream_egress is None:
            self._stream_egress = Egress(self._allow, lookup=self._lookup, tls=self._tls, connections=(0, 0))
        return self._stream_egress

    def check(self, url: str) -> URL:
        """Vets the text of a URL. Raises EgressRefused."""
        return self._checked_urls.get(url) or self._check_and_remember(url)

    async def vet(self, url: str) -> None:
        """Vets the URL and all current addresses of its host. Raises EgressRefused, and UpstreamFault when the name has none."""
        await self.resolve_target(url)

    async def resolve_target(self, url: str) -> VettedTarget:
        """The vetted addresses, for callers that connect by other means. Raises as `vet` does."""
        target = self.check(url)
        try:
            found = await self._resolver.resolve(str(target.raw_host), target.port or 0)
        except OSError as error:
            raise _fault_at(NotConnected(error), url) from error
        return VettedTarget(target, tuple(found))

    async def fetch(self, url: str, *, limit: int = 1 << 20, timeout: float = 10.0) -> HttpResponse:  # noqa: ASYNC109 (covers reading too)
        """GETs a small document."""
        return await self.request("GET", url, headers={"Accept": "application/json"}, body=None, timeout=timeout, limit=limit)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: float = TIMEOUT_SECONDS,  # noqa: ASYNC109 (covers reading too)
        limit: int = BODY_MAX,
        idempotent: bool = False,
        fresh: bool = False,
        carries_call: bool = False,
    ) -> HttpResponse:
        """Sends one request and reads the whole response, of any status. Does not follow redirects.

        `timeout`: seconds for all of it. `limit`: bytes of the (decompressed) response. `idempotent`: a repetition is harmless, so the
        request is retried once if the server closed the connection. `fresh`: uses a new connection, for requests that must neither be
        lost with an old one nor be sent twice. `carries_call`: the request carries a call, so that a person who tries it may see it.
        """
        target = self._request_targets.get(url) or self._request_target(url)
        if fresh:
            self._pool.close_idle(target)
        is_tried = carries_call and CURRENT_RECORDER.get() is not None
        record = begin_exchange(f"{method} {_without_query(url)}", headers, body) if is_tried else None
        try:
            answer = await self._pool.exchange(target, method, headers, body, seconds=timeout, limit=limit)
            if record is not None:
                record.begin_response(answer.status, answer.headers)
                record.add_body(answer.body)
            return answer
        except ConnectionDropped as error:
            if not idempotent:
                raise _fault_at(error, url) from error
        except POOL_ERRORS as error:
            raise _fault_at(error, url) from error
        try:
            return await self._pool.exchange(target, method, headers, body, seconds=timeout, limit=limit)
        except POOL_ERRORS as error:
            raise _fault_at(error, url) from error

    def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: float,  # covers reading too
        carries_call: bool = False,
    ) -> "ResponseStream":
        """Returns the context of one request: entering it sends, leaving it ends the response. `carries_call`: see `request`."""
        return ResponseStream(partial(self._open, method, url, headers, body, timeout or ENDLESS_SECONDS, carries_call=carries_call))

    async def post_unless_events(
        self, url: str, *, headers: Mapping[str, str], body: bytes, seconds: float, limit: int
    ) -> "HttpResponse | ResponseStream":
        """POSTs a call. Returns the whole response of at most `limit` bytes, or the context of an event stream, which has begun.

        `seconds`: for the whole response, or until a stream begins. The caller enters and leaves the context of a stream.
        """
        target = self._request_targets.get(url) or self._request_target(url)
        record = begin_exchange(f"POST {_without_query(url)}", headers, body) if CURRENT_RECORDER.get() is not None else None
        try:
            answer = await self._stream_pool.exchange_or_open(target, "POST", headers, body, EVENT_STREAM, seconds=seconds, limit=limit)
        except POOL_ERRORS as error:
            raise _fault_at(error, url) from error
        if record is not None:
            record.begin_response(answer.status, answer.headers)
        if isinstance(answer, OpenedResponse):
            return ResponseStream(partial(_return_opened, answer, record))
        if record is not None:
            record.add_body(answer.body)
        return answer

    async def _open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, seconds: float, *, carries_call: bool
    ) -> tuple[OpenedResponse, ExchangeRecord | None]:
        target = self._request_targets.get(url) or self._request_target(url)
        is_tried = CURRENT_RECORDER.get() is not None and carries_call
        record = begin_exchange(f"{method} {_without_query(url)}", headers, body) if is_tried else None
        try:
            answer = await self._stream_pool.open(target, method, headers, body, seconds=seconds)
        except POOL_ERRORS as error:
            raise _fault_at(error, url) from error
        if record is not None:
            record.begin_response(answer.status, answer.headers)
        return answer, record

    async def close(self) -> None:
        """Closes every connection."""
        await self._pool.close()
        await self._stream_pool.close()
        if self._stream_egress is not None:
            await self._stream_egress.close()

    def _tls_context(self) -> SSLContext:
        if self._tls is None:
            self._tls = _system_tls_context()
        return self._tls

    def _request_target(self, url: str) -> HttpTarget:
        if len(self._request_targets) >= URLS_MAX:
            self._request_targets.clear()
        target = self._request_targets[url] = HttpTarget.from_url(self.check(url))
        return target

    def _check_and_remember(self, url: str) -> URL:
        target = self._targets.check(url)
        if len(self._checked_urls) >= URLS_MAX:
            self._checked_urls.clear()
        self._checked_urls[url] = target
        return target


@cache
def _system_tls_context() -> SSLContext:
    """Returns the one TLS context of the process that trusts the system's authorities, since reading them takes 30 milliseconds."""
    return create_default_context()


class ResponseStream:
    """The context of a response that is arriving. Contexts that are generators cost each call of a session three times as much."""

    __slots__ = ("_answer", "_opening")

    def __init__(self, opening: Callable[[], Awaitable[tuple[OpenedResponse, ExchangeRecord | None]]]) -> None:
        self._opening = opening
        self._answer: OpenedResponse | None = None

    async def __aenter__(self) -> "StreamedResponse":
        self._answer, record = await self._opening()
        return StreamedResponse(self._answer, record)

    async def __aexit__(self, kind: type[BaseException] | None, _error: object, _traceback: object) -> None:
        """Ends the response. The rest is read where its reader was content: also if it closed its generator after the last event."""
        if self._answer is not None:
            self._answer.close(kind is None or issubclass(kind, GeneratorExit))


class StreamedResponse:
    """A response that is arriving: iterate over it for chunks of bytes."""

    def __init__(self, answer: OpenedResponse, record: ExchangeRecord | None = None) -> None:
        self._body = answer.body
        self._record = record
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yields chunks as they arrive, none of them empty. Raises UpstreamFault."""
        while chunk := await self.next_chunk():
            yield chunk

    async def read(self, limit: int = BODY_MAX) -> bytes:
        """The whole response, at most `limit` bytes. Raises UpstreamFault."""
        chunks, size = list[bytes](), 0
        while size <= limit:
            chunk = await self.next_chunk()
            chunks.append(chunk)
            size += len(chunk)
            if size <= limit and (not chunk or self._body.is_read):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        raise UpstreamFault("the upstream's answer is too large", f"more than {limit} bytes")

    def pause_until(self, when: float) -> None:
        """Reads nothing until `when`, on the event loop's clock. What arrives meanwhile becomes one chunk."""
        self._body.pause_until(when)

    async def next_chunk(self) -> bytes:
        """What has arrived, as soon as there is anything; empty at the end. Raises UpstreamFault."""
        try:
            chunk = await self._body.read()
        except (ResponseTooLarge, OSError, ValueError) as error:
            raise _fault_at(error) from error
        if self._record is not None and chunk:
            self._record.add_body(chunk)
        return chunk


async def _return_opened(answer: OpenedResponse, record: ExchangeRecord | None) -> tuple[OpenedResponse, ExchangeRecord | None]:
    return answer, record


def _fault_at(error: Exception, url: str = "") -> UpstreamFault:
    cause = error.error if isinstance(error, NotConnected) else error
    fault = _fault_of(cause)
    fault.address = _without_query(url)
    fault.is_unsent = cause is not error
    return fault


def _without_query(url: str) -> str:
    return url.partition("?")[0].partition("#")[0]


def _fault_of(error: Exception) -> UpstreamFault:
    detail = f"{type(error).__name__}: {error}"[:500]
    if isinstance(error, ResponseTooLarge):
        return UpstreamFault("the upstream's answer is too large", str(error))
    if isinstance(error, TimeoutError):
        return Unreachable("the upstream did not answer in time", detail, Failure.LATE)
    if isinstance(error, OSError):
        cut = isinstance(error, (ConnectionResetError, ConnectionDropped))
        return Unreachable("the upstream can't be reached", detail, Failure.CUT if cut else Failure.UNREACHABLE)
    return UpstreamFault("the upstream's answer can't be read", detail, Failure.INVALID)
