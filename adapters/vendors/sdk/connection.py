"""The line to one agent under one call: requests with the call's credential, answers as frames, outputs fetched by their address."""

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
from adapters.task import Part
from adapters.upstream.egress import Egress, EgressRefused
from adapters.vendors.sdk.faults import fault_of
from adapters.vendors.sdk.frames import Decoders, End, Frame, Head, decoder_for, parsed
from policies.strict_json import LARGE, in_reader, off_loop

ANSWER_MAX: Final = 8 << 20  # bytes of an answer that is read as a whole
ERROR_MAX: Final = 64 << 10  # bytes of an answer that tells of an error
FILE_MAX: Final = 8 << 20  # bytes of an output that is fetched
FILE_SECONDS: Final = 30.0
TROUBLES_MAX: Final = 3  # in a row, that an agent which is asked over and over is forgiven
NOT_FETCHED: Final = "urn:interlock:a2a:not-fetched"  # in the metadata of a part: why its address stands in place of what is there
JSON: Final = "application/json"
SAFE: Final = ("GET", "HEAD", "OPTIONS")

O_co = TypeVar("O_co", covariant=True)


class Place(Struct, frozen=True):
    """Where an agent is, and what may be shown to it. `deadline`: seconds on the event loop's clock.

    `user` and `session` are empty while the gateway looks at an agent on nobody's behalf.
    """

    url: str
    upstream: Mapping[str, Any]
    headers: Mapping[str, str]
    deadline: float
    user: str = ""
    session: str = ""
    heard: Callable[[], None] = lambda: None  # called for each sign of life


class Request(Struct, frozen=True):
    """`path` is below the agent's URL, or a URL, which gets the agent's credential only at the agent's own origin.

    `body`: bytes as they are, UNSET for none, anything else as JSON. `headers` stand in place of the credential's where both have one.
    `also`: statuses beside 2xx that are answers, not faults. `secrets`: what no log may have, beside the credential.
    `domain`: one that the agent's own host is in; its other hosts, at the agent's scheme and port, get the credential too.
    """

    method: str
    path: str
    body: Any = UNSET
    headers: Mapping[str, str] = {}
    also: tuple[int, ...] = ()
    secrets: tuple[str, ...] = ()
    domain: str = ""


class Answered(Struct, frozen=True):
    """A whole answer; `value` is its JSON, None of an empty body. Names of headers have small letters."""

    status: int
    headers: Mapping[str, str]
    value: Any


def quoted(text: str) -> str:
    """One step of a path: an id never leads to another place."""
    return quote(text, safe="") if text not in (".", "..") else quote(text).replace(".", "%2E")


def multipart(fields: Mapping[str, str], file: Part) -> tuple[str, bytes]:
    """Content type and body of a form (RFC 7578) with a part's bytes as its `file`. No name or type ends its header."""
    kind, name = quote(file.media_type, safe="/+.-") or "application/octet-stream", quote(file.filename or "file", safe=" .()")
    heads = [(f'name="{field}"', value.encode()) for field, value in fields.items()]
    heads.append((f'name="file"; filename="{name}"\r\nContent-Type: {kind}', base64.b64decode(str(file.raw))))
    border = "interlock-" + hashlib.sha256(b"".join(body for _, body in heads)).hexdigest()  # in no body, then
    parts = [f"--{border}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + body + b"\r\n" for head, body in heads]
    return f"multipart/form-data; boundary={border}", b"".join(parts) + f"--{border}--\r\n".encode()


class Line(Generic[O_co]):
    """`options` are those of the vendor, validated; `user` is who the person is to the vendor, `session` the gateway's name of the
    conversation. Credentials are in the headers, and nobody has to know of them.
    """

    def __init__(self, egress: Egress, place: Place, options: O_co) -> None:
        self._egress = egress
        self._place = place
        self.options = options
        self.user = place.user
        self.session = place.session
        self._acted = False  # whether the agent took a request that may have changed something

    @property
    def url(self) -> str:
        """The agent's, without a slash at its end."""
        return self._place.url.rstrip("/")

    @property
    def seconds(self) -> float:
        """Until the deadline."""
        return max(self._place.deadline - asyncio.get_running_loop().time(), 0.001)

    async def json(self, request: Request) -> Any:
        """The JSON of an answer. Raises UpstreamFault."""
        return (await self.ask(request)).value

    async def ask(self, request: Request) -> Answered:
        """A whole answer. Raises UpstreamFault."""
        url, headers, body = self._sent(request)
        with self._judging():
            answer = await self._egress.request(
                request.method, url, headers={"accept": JSON, **headers}, body=body, timeout=self.seconds, limit=ANSWER_MAX
            )
            self._place.heard()
            names = _small(answer.headers)
            if not 200 <= answer.status < 300 and answer.status not in request.also:
                raise self._hushed(fault_of(answer.status, names, answer.body), request)
        self._note_effect(request, answer.status)
        return Answered(answer.status, names, await off_loop(parsed, answer.body) if answer.body.strip() else None)

    async def polled(self, request: Request, every: float) -> AsyncGenerator[Any, None]:
        """The JSON of an answer, over and over, with a pause of `every` seconds before each. Raises UpstreamFault."""
        troubles = 0
        while True:
            await asyncio.sleep(min(every, self.seconds))
            try:
                value = await self.json(request)
            except UpstreamFault as fault:
                troubles += 1
                if troubles > TROUBLES_MAX or not (fault.retryable or isinstance(fault, Unreachable)):
                    raise
                continue
            troubles = 0
            yield value

    async def frames(self, request: Request, more: Decoders | None = None) -> AsyncGenerator[Frame, None]:
        """An answer while it arrives, from its Head to its End, which is not clean when the connection breaks. Raises UpstreamFault."""
        url, headers, body = self._sent(request)
        accept = {"accept": f"text/event-stream, {JSON}"}
        stream = self._egress.stream(request.method, url, headers={**accept, **headers}, body=body, timeout=self.seconds)
        async with self._begun(stream) as answer:
            names = _small(answer.headers)
            if not 200 <= answer.status < 300 and answer.status not in request.also:
                with self._judging():
                    raise self._hushed(fault_of(answer.status, names, await _some(answer)), request)
            self._note_effect(request, answer.status)
            yield Head(names, answer.status)
            if answer.status == 204:
                yield End(True)
                return
            decoder = decoder_for(names.get("content-type", ""), more)
            size = 0
            try:
                async for chunk in answer:
                    size += len(chunk)
                    self._place.heard()
                    for frame in decoder.feed(chunk):
                        yield frame
            except UpstreamFault as fault:
                if fault.kind != UpstreamFault.kind:
                    raise
                yield End(False)
                return
            for frame in decoder.finish() if size <= LARGE else await in_reader(decoder.finish):
                yield frame

    async def fetched(self, part: Part, more: Mapping[str, str] | None = None) -> Part:
        """What is at a part's address, in its place; the part as it was, saying why, where that can't be had.

        `more`: headers that the agent's own origin wants beside the credential.
        """
        url = urljoin(f"{self.url}/", str(part.url))
        headers = {**(more or {}), **self._place.headers} if _origin(url) == _origin(self.url) else {}
        seconds = min(self.seconds, FILE_SECONDS)
        try:
            answer = await self._egress.request("GET", url, headers=headers, body=None, timeout=seconds, limit=FILE_MAX, idempotent=True)
        except (UpstreamFault, EgressRefused) as fault:
            return _left(part, fault.public)
        if answer.status != 200:
            return _left(part, "it is not there")
        kind = part.media_type or answer.headers.get("content-type", "").partition(";")[0].strip()
        return replace(part, url=UNSET, raw=base64.b64encode(answer.body).decode(), media_type=kind)

    def _sent(self, request: Request) -> tuple[str, dict[str, str], bytes | None]:
        absolute = request.path.startswith(("https://", "http://"))
        url = request.path if absolute else self.url + request.path
        credentials = self._place.headers if _is_own(url, self.url, request.domain) else {}
        own = {name.lower() for name in request.headers}
        headers = {name: value for name, value in credentials.items() if name.lower() not in own} | dict(request.headers)
        if request.body is UNSET:
            return url, headers, None
        if isinstance(request.body, bytes):
            return url, headers, request.body
        return url, {"content-type": JSON, **headers}, msgspec.json.encode(request.body)

    @contextmanager
    def _judging(self) -> Iterator[None]:
        """Notes on a fault whether the agent surely did nothing in this turn: not for this request, and not for one before it."""
        try:
            yield
        except UpstreamFault as fault:
            fault.undone = not self._acted and (fault.unsent or fault.undone)
            raise

    @asynccontextmanager
    async def _begun(self, stream: AbstractAsyncContextManager[Any]) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            with self._judging():
                answer = await stack.enter_async_context(stream)
            yield answer

    def _note_effect(self, request: Request, status: int) -> None:
        self._acted = self._acted or (request.method not in SAFE and 200 <= status < 300)

    def _hushed(self, fault: UpstreamFault, request: Request) -> UpstreamFault:
        """Without what an agent echoes of the credentials that it was shown."""
        for secret in (*self._place.headers.values(), *request.secrets):
            for word in (secret, secret.rpartition(" ")[2]):
                if len(word) >= 8:
                    fault.detail = fault.detail.replace(word, "…")
        return fault


async def _some(answer: Any) -> bytes:
    """The beginning of an answer that tells of an error; nobody waits for what can't be read."""
    try:
        return bytes(await answer.read(ERROR_MAX))
    except UpstreamFault:
        return b""


def _left(part: Part, why: str) -> Part:
    known = part.metadata if isinstance(part.metadata, dict) else {}
    return replace(part, metadata={**known, NOT_FETCHED: why})


def _small(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _is_own(url: str, own: str, domain: str) -> bool:
    """Whether an address is at the agent's origin, or at another host of a domain that the agent's host is in."""
    if _origin(url) == _origin(own):
        return True
    there, here = urlsplit(url), urlsplit(own)
    same = (there.scheme, there.port) == (here.scheme, here.port) and not (there.username or there.password)
    return bool(domain) and same and all(_is_in(each.hostname or "", domain) for each in (there, here))


def _is_in(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()
