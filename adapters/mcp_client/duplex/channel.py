"""A conversation over one channel on which everything arrives: a process's streams, or the two halves of HTTP+SSE."""

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from msgspec import UNSET, Raw

from adapters.contract import Failure, NotSent, Unreachable, UpstreamFault
from adapters.mcp_client.exchange.http import LATE, Exchange
from adapters.mcp_client.exchange.server_messages import CHANGES, Hearing
from adapters.mcp_client.legacy.sessions import EXPECTED_MAX, LISTS_CHANGED, accepted, initialize_params
from adapters.mcp_client.listening import ACKNOWLEDGED, SUBSCRIPTION, admits, tell
from adapters.mcp_client.wire.eras import PROGRESS, modern_params, plain_params, word
from adapters.mcp_client.wire.messages import (
    MODERN,
    UNSUPPORTED_VERSION,
    Envelope,
    McpRefused,
    McpRequest,
    Members,
    WireError,
    check_answer,
    envelope_of,
    members_of,
    read_envelope,
    refusal_of,
    reply_of,
    told_of,
)
from adapters.mcp_client.wire.peer import Listener, Listening

WAITING_MAX: Final = 1000  # messages of one call that its client did not take yet; more are dropped
CALLS_MAX: Final = 256  # at once on one channel
PROBE_SECONDS: Final = 5.0
SEND_SECONDS: Final = 10.0
_EMPTY: Final = Raw(b"{}")

Send = Callable[[bytes], Awaitable[None]]


class Mailbox:
    """What arrives for one request. An answer always has a place."""

    def __init__(self) -> None:
        self._messages: deque[Envelope | UpstreamFault] = deque()
        self._news = asyncio.Event()

    def put(self, message: Envelope | UpstreamFault) -> None:
        if len(self._messages) < WAITING_MAX or isinstance(message, UpstreamFault) or message.method is UNSET:
            self._messages.append(message)
            self._news.set()

    async def take(self) -> Envelope:
        while not self._messages:
            self._news.clear()
            await self._news.wait()
        message = self._messages.popleft()
        if isinstance(message, UpstreamFault):
            raise message
        return message


class Duplex:
    """One open channel. `owned`: it belongs to one client, so that what names no request can only be for that client.

    On a shared channel only what carries a request's own token or subscription id reaches anybody.
    """

    def __init__(self, send: Send, owned: bool) -> None:
        self.send = send
        self._owned = owned
        self._number = itertools.count(1).__next__
        self._open: dict[int, Mailbox] = {}
        self._hearing: list[int] = []  # those of `_open` whose client hears, the latest last
        self._telling: set[asyncio.Task[None]] = set()
        self.listeners: list[tuple[Listener, Callable[[], Listening]]] = []
        self.ended: UpstreamFault | None = None
        self.heard = 0  # messages that have arrived
        self.version = ""
        self.offered: Mapping[str, Any] = {}
        self.instructions = ""
        self.expected: deque[bytes] = deque(maxlen=EXPECTED_MAX)  # progress tokens, as JSON, of what the server asked
        self.hint: Callable[[], None] | None = None  # told whenever the server says that a list changed

    @property
    def modern(self) -> bool:
        return self.version == MODERN

    @property
    def busy(self) -> bool:
        return bool(self._open or self.listeners)

    async def open(self, capabilities: str, seconds: float, may_be_modern: bool) -> None:
        """Finds the era and shakes hands. Raises UpstreamFault and NotLegacy."""
        if may_be_modern and await self._is_modern(min(PROBE_SECONDS, seconds / 2)):
            self.version = MODERN
            return
        exchange = await self.request("initialize", initialize_params(capabilities), seconds)
        said = accepted(exchange)
        self.version, self.offered, self.instructions = said.protocol_version, said.capabilities, said.instructions or ""
        await self.send(told_of("notifications/initialized"))

    async def _is_modern(self, seconds: float) -> bool:
        """stdio of 2026-07-28: a result or a modern error is proof; any other error, or silence, is none."""
        try:
            answer = (await self.request("server/discover", modern_params({}), seconds)).answer
        except Unreachable:
            if self.ended is not None:
                raise
            return False
        if answer is None:
            return False
        if isinstance(answer.error, WireError):
            data = answer.error.data if isinstance(answer.error.data, dict) else {}
            supported = data.get("supported")
            return answer.error.code == UNSUPPORTED_VERSION and isinstance(supported, list) and MODERN in supported
        members = members_of(answer.result if answer.result is not UNSET else _EMPTY)
        self.instructions = word(members.get("instructions", _EMPTY))
        return f'"{MODERN}"'.encode() in bytes(members.get("supportedVersions", Raw(b"")))

    async def request(self, method: str, params: Any, seconds: float) -> Exchange:
        """A request of our own. Raises UpstreamFault."""
        with self.place() as (number, mailbox):
            return await self._exchange(mailbox, number, (envelope_of(number, method, params), seconds), None)

    async def call(self, request: McpRequest, more: Mapping[str, Any], seconds: float) -> Exchange:
        """A client's request, perhaps with `more` members. Raises UpstreamFault and McpRefused."""
        with self.place() as (number, mailbox):
            params = {**self._params(request, number), **more}
            sending = (envelope_of(number, request.method, params), seconds)
            try:
                if request.peer is None:
                    return await self._exchange(mailbox, number, sending, None)
                async with Hearing(request, request.peer, number, None if self.modern else self) as hearing:
                    return await self._exchange(mailbox, number, sending, hearing)
            except (asyncio.CancelledError, McpRefused, UpstreamFault):
                self.tell(told_of("notifications/cancelled", {"requestId": number, "reason": "the client no longer waits"}))
                raise

    async def _exchange(self, mailbox: Mailbox, number: int, sending: tuple[bytes, float], hearing: Hearing | None) -> Exchange:
        if hearing is not None:
            self._hearing.append(number)
        try:
            async with asyncio.timeout(max(sending[1], 0.001)) as limit:
                if hearing is not None:
                    hearing.limit = limit
                await self.send(sending[0])
                while True:
                    message = await mailbox.take()
                    if message.method is UNSET:
                        return Exchange(200, {}, check_answer(message, number))
                    if hearing is not None:
                        await hearing.heard(message)
        except TimeoutError as error:
            raise Unreachable(LATE, "timeout", Failure.LATE) from error
        finally:
            if hearing is not None:
                self._hearing.remove(number)

    def _params(self, request: McpRequest, number: int) -> dict[str, Any]:
        """The parameters in the server's era, with a progress token that nobody else on the channel has."""
        if not self.modern:
            return plain_params(request, number)
        params: dict[str, Any] = dict(members_of(request.params))
        if not request.modern:
            params = modern_params(params, request.peer, request.level)
        meta = params.get("_meta", {})
        meta = dict(members_of(meta)) if isinstance(meta, Raw) else dict(meta)
        if request.peer is not None and PROGRESS in meta:
            meta[PROGRESS] = number
        return {**params, "_meta": meta}

    def receive(self, line: bytes) -> None:
        """Takes one message and never waits for a client. Raises UpstreamFault for what is no message."""
        message = read_envelope(line)
        self.heard += 1
        if message.method is UNSET:
            mailbox = self._open.get(message.id) if isinstance(message.id, int) else None
            if mailbox is not None:
                mailbox.put(message)
            return
        method, params = str(message.method), members_of(message.params if message.params is not UNSET else _EMPTY)
        mailbox = self._open.get(self._meant(method, params) or 0)
        if mailbox is not None:
            mailbox.put(message)
        elif message.id is not None:
            refused = reply_of(message.id, {}) if method == "ping" else refusal_of(message.id, -32601, "nobody is there who could be asked")
            self.tell(refused)
        elif method in CHANGES:
            self._changed(method, params)

    def _meant(self, method: str, params: Members) -> int | None:
        """The request that a message belongs to."""
        if method in CHANGES or method == ACKNOWLEDGED:
            meta = params.get("_meta")
            named = members_of(meta).get(SUBSCRIPTION) if meta is not None else None
            return _integer(named)
        if method == "notifications/progress":
            return _integer(params.get(PROGRESS))
        return self._hearing[-1] if self._owned and self._hearing else None

    async def changed(self, method: str, params: Raw) -> bool:
        return self._changed(method, members_of(params))

    def _changed(self, method: str, params: Members) -> bool:
        """Brings a change to whoever listens to it."""
        if self.hint is not None and method in LISTS_CHANGED:
            self.hint()
        meant = [(listener, wanted()) for listener, wanted in self.listeners if admits(wanted(), method, params)]
        for listener, granted in meant:
            self._spawn(tell(listener, granted, method, params))
        return bool(meant)

    def expect(self, token: bytes) -> None:
        self.expected.append(token)

    async def reply(self, body: bytes) -> None:
        await self.send(body)

    def tell(self, body: bytes) -> None:
        """Sends without waiting, as far as the channel still stands."""
        if self.ended is None:
            self._spawn(self._tell(body))

    async def _tell(self, body: bytes) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self.send(body)
        except (UpstreamFault, TimeoutError):
            return

    def _spawn(self, work: Awaitable[None]) -> None:
        if len(self._telling) >= WAITING_MAX:
            self._telling.pop().cancel()
        task = asyncio.ensure_future(work)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def end(self, fault: UpstreamFault) -> None:
        """The channel is no more: every request under way fails."""
        if self.ended is None:
            self.ended = fault
            for mailbox in self._open.values():
                mailbox.put(fault)

    @contextmanager
    def place(self) -> Iterator[tuple[int, Mailbox]]:
        """A request's number, and what arrives for it."""
        if self.ended is not None:
            raise self.ended
        if len(self._open) >= CALLS_MAX:
            raise NotSent("Too many calls to the server are under way", f"{CALLS_MAX}")
        number = self._number()
        mailbox = self._open[number] = Mailbox()
        try:
            yield number, mailbox
        finally:
            del self._open[number]


def _integer(text: Raw | None) -> int | None:
    return int(bytes(text)) if text is not None and bytes(text).isdigit() else None
