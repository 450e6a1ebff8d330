"""The connection to one agent for one call: requests with the call's credential, responses as frames, outputs fetched by URL."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from adapters.contract import Unreachable, UpstreamFault
from adapters.redaction.secrets import SECRET_MIN, SecretRedactor
from adapters.task import Part
from adapters.upstream.call_redaction import CallRedactor
from adapters.upstream.egress import Egress, EgressRefused
from adapters.vendors.sdk.faults import fault_for_status
from adapters.vendors.sdk.frames import DecoderFactories, End, Frame, Head, decoder_for, parse_json
from policies.strict_json import LARGE, run_in_reader, run_off_loop

ANSWER_MAX: Final = 8 << 20  # bytes of a response that is read as a whole
ERROR_MAX: Final = 64 << 10  # bytes of an error response
FILE_MAX: Final = 8 << 20  # bytes of a fetched output
FILE_SECONDS: Final = 30.0
POLL_FAILURES_MAX: Final = 3  # failed polls in a row that are tolerated
NOT_FETCHED_KEY: Final = "urn:interlock:a2a:not-fetched"  # the key in a part's metadata: why its URL was not replaced by its content
JSON_TYPE: Final = "application/json"
SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")

O_co = TypeVar("O_co", covariant=True)


class VendorEndpoint(Struct, frozen=True):
    """Where an agent is, and what it gets. `deadline`: seconds on the event loop's clock.

    `user` and `session` are empty while the gateway only checks an agent.
    """

    url: str
    upstream: Mapping[str, Any]
    headers: Mapping[str, str]
    deadline: float
    user: str = ""
    session: str = ""
    on_activity: Callable[[], None] = lambda: None  # called whenever data arrives


class Request(Struct, frozen=True):
    """A request. `path` is below the agent's URL, or a URL, which gets the agent's credential at the agent's own origin only.

    `body`: bytes are sent unchanged, UNSET sends none, anything else is sent as JSON. `headers` override those of the credential.
    `accepted_statuses`: statuses beside 2xx that are responses, not faults. `secrets`: what logs must not have, beside the credential.
    `credential_domain`: a domain of the agent's host; its other hosts, at the same scheme and port, get the credential too.
    """

    method: str
    path: str
    body: Any = UNSET
    headers: Mapping[str, str] = {}
    accepted_statuses: tuple[int, ...] = ()
    secrets: tuple[str, ...] = ()
    credential_domain: str = ""


class VendorResponse(Struct, frozen=True):
    """A whole response. `value` is its JSON, None for an empty body. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    value: Any


def quote_segment(text: str) -> str:
    """A quoted path segment: an id can't change the path."""
    return quote(text, safe="") if text not in (".", "..") else quote(text).replace(".", "%2E")


def encode_multipart(fields: Mapping[str, str], file: Part) -> tuple[str, bytes]:
    """Content type and body of a form (RFC 7578) with a part's bytes as its `file`. Names and types can't break out of their headers."""
    kind, name = quote(file.media_type, safe="/+.-") or "application/octet-stream", quote(file.filename or "file", safe=" .()")
    heads = [(f'name="{field}"', value.encode()) for field, value in fields.items()]
    heads.append((f'name="file"; filename="{name}"\r\nContent-Type: {kind}', base64.b64decode(str(file.raw))))
    border = "interlock-" + hashlib.sha256(b"".join(body for _, body in heads)).hexdigest()  # in no body
    parts = [f"--{border}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + body + b"\r\n" for head, body in heads]
    return f"multipart/form-data; boundary={border}", b"".join(parts) + f"--{border}--\r\n".encode()


class VendorConnection(Generic[O_co]):
    """The connection of one call. `options` are the vendor's, validated; `user` and `session` the ids for the vendor.

    The credential's headers are added to requests, so vendors do not handle it.
    """

    def __init__(self, egress: Egress, endpoint: VendorEndpoint, options: O_co) -> None:
        self._egress = egress
        self._endpoint = endpoint
        self.options = options
        self.user = endpoint.user
        self.session = endpoint.session
        self._has_had_effect = False  # whether the agent accepted a request that may have changed something

    @property
    def url(self) -> str:
        """The agent's URL without a trailing slash."""
        return self._endpoint.url.rstrip("/")

    @property
    def seconds_left(self) -> float:
        """The seconds until the deadline."""
        return max(self._endpoint.deadline - asyncio.get_running_loop().time(), 0.001)

    async def request_json(self, request: Request) -> Any:
        """Sends a request and returns the response's JSON. Raises UpstreamFault."""
        return (await self.request(request)).value

    async def request(self, request: Request) -> VendorResponse:
        """Sends a request and returns the whole response. Raises UpstreamFault."""
        url, headers, body = self._http_request(request)
        with self._marking_no_effect():
            answer = await self._egress.request(
                request.method,
                url,
                headers={"accept": JSON_TYPE, **headers},
                body=body,
                timeout=self.seconds_left,
                limit=ANSWER_MAX,
                carries_call=True,
            )
            self._endpoint.on_activity()
            names = lowercase_names(answer.headers)
            if not 200 <= answer.status < 300 and answer.status not in request.accepted_statuses:
                raise self._redact_fault(fault_for_status(answer.status, names, answer.body), request)
        self._note_effect(request, answer.status)
        return VendorResponse(answer.status, names, await run_off_loop(parse_json, answer.body) if answer.body.strip() else None)

    async def poll_json(self, request: Request, interval_seconds: float) -> AsyncGenerator[Any, None]:
        """Yields the JSON of repeated requests, with a pause of `interval_seconds` before each. Raises UpstreamFault."""
        troubles = 0
        while True:
            await asyncio.sleep(min(interval_seconds, self.seconds_left))
            try:
                value = await self.request_json(request)
            except UpstreamFault as fault:
                troubles += 1
                if troubles > POLL_FAILURES_MAX or not (fault.retryable or isinstance(fault, Unreachable)):
                    raise
                continue
            troubles = 0
            yield value

    async def stream_frames(self, request: Request, extra_decoders: DecoderFactories | None = None) -> AsyncGenerator[Frame, None]:
        """Yields a response's frames from Head to End, which is not clean when the connection breaks. Raises UpstreamFault."""
        url, headers, body = self._http_request(request)
        accept = {"accept": f"text/event-stream, {JSON_TYPE}"}
        stream = self._egress.stream(
            request.method, url, headers={**accept, **headers}, body=body, timeout=self.seconds_left, carries_call=True
        )
        async with self._open_stream(stream) as answer:
            names = lowercase_names(answer.headers)
            if not 200 <= answer.status < 300 and answer.status not in request.accepted_statuses:
                with self._marking_no_effect():
                    raise self._redact_fault(fault_for_status(answer.status, names, await _read_error_body(answer)), request)
            self._note_effect(request, answer.status)
            yield Head(names, answer.status)
            if answer.status == 204:
                yield End(True)
                return
            decoder = decoder_for(names.get("content-type", ""), extra_decoders)
            size = 0
            try:
                async for chunk in answer:
                    size += len(chunk)
                    self._endpoint.on_activity()
                    for frame in decoder.feed(chunk):
                        yield frame
            except UpstreamFault as fault:
                if fault.kind != UpstreamFault.kind:
                    raise
                yield End(False)
                return
            for frame in decoder.finish() if size <= LARGE else await run_in_reader(decoder.finish):
                yield frame

    async def fetch_part(self, part: Part, extra_headers: Mapping[str, str] | None = None) -> Part:
        """The part with its URL replaced by the content there; unchanged, with the reason in its metadata, where that fails.

        `extra_headers` are sent to the agent's own origin, beside the credential.
        """
        url = urljoin(f"{self.url}/", str(part.url))
        headers = {**(extra_headers or {}), **self._endpoint.headers} if _origin(url) == _origin(self.url) else {}
        seconds = min(self.seconds_left, FILE_SECONDS)
        try:
            answer = await self._egress.request("GET", url, headers=headers, body=None, timeout=seconds, limit=FILE_MAX, idempotent=True)
        except (UpstreamFault, EgressRefused) as fault:
            return _not_fetched_part(part, fault.public)
        if answer.status != 200:
            return _not_fetched_part(part, "it is not there")
        kind = part.media_type or answer.headers.get("content-type", "").partition(";")[0].strip()
        return replace(part, url=UNSET, raw=base64.b64encode(answer.body).decode(), media_type=kind)

    def _http_request(self, request: Request) -> tuple[str, dict[str, str], bytes | None]:
        absolute = request.path.startswith(("https://", "http://"))
        url = request.path if absolute else self.url + request.path
        credentials = self._endpoint.headers if _may_get_credential(url, self.url, request.credential_domain) else {}
        own = {name.lower() for name in request.headers}
        headers = {name: value for name, value in credentials.items() if name.lower() not in own} | dict(request.headers)
        if request.body is UNSET:
            return url, headers, None
        if isinstance(request.body, bytes):
            return url, headers, request.body
        return url, {"content-type": JSON_TYPE, **headers}, msgspec.json.encode(request.body)

    @contextmanager
    def _marking_no_effect(self) -> Iterator[None]:
        """Marks faults as without effect if neither this request nor an earlier one in the turn can have changed anything."""
        try:
            yield
        except UpstreamFault as fault:
            fault.had_no_effect = not self._has_had_effect and (fault.is_unsent or fault.had_no_effect)
            raise

    @asynccontextmanager
    async def _open_stream(self, stream: AbstractAsyncContextManager[Any]) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            with self._marking_no_effect():
                answer = await stack.enter_async_context(stream)
            yield answer

    def _note_effect(self, request: Request, status: int) -> None:
        self._has_had_effect = self._has_had_effect or (request.method not in SAFE_METHODS and 200 <= status < 300)

    def _redact_fault(self, fault: UpstreamFault, request: Request) -> UpstreamFault:
        """Removes the call's credentials from a fault, where the agent echoed them."""
        redactor = CallRedactor(self._endpoint.headers)
        redactor.add_headers(request.headers)
        redactor.redact_fault(fault)
        long_enough = [secret for secret in request.secrets if len(secret) >= SECRET_MIN]
        if long_enough:
            SecretRedactor(long_enough).redact_fault(fault)
        return fault


async def _read_error_body(answer: Any) -> bytes:
    """The beginning of an error response; empty if it can't be read."""
    try:
        return bytes(await answer.read(ERROR_MAX))
    except UpstreamFault:
        return b""


def _not_fetched_part(part: Part, reason: str) -> Part:
    known = part.metadata if isinstance(part.metadata, dict) else {}
    return replace(part, metadata={**known, NOT_FETCHED_KEY: reason})


def lowercase_names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _may_get_credential(url: str, agent_url: str, domain: str) -> bool:
    """Whether a URL is at the agent's origin, or at another host in a domain of the agent's host."""
    if _origin(url) == _origin(agent_url):
        return True
    target, agent = urlsplit(url), urlsplit(agent_url)
    same = (target.scheme, target.port) == (agent.scheme, agent.port) and not (target.username or target.password)
    return bool(domain) and same and all(_is_in_domain(each.hostname or "", domain) for each in (target, agent))


def _is_in_domain(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()
