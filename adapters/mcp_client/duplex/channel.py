"""A duplex channel on which all messages arrive: a process's streams, or both halves of HTTP+SSE."""

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from adapters.contract import Failure, NotSent, Unreachable, UpstreamFault
from adapters.mcp_client.exchange.http import LATE_TEXT, Exchange
from adapters.mcp_client.exchange.server_messages import CHANGE_METHODS, ServerMessages
from adapters.mcp_client.legacy.sessions import EXPECTED_TOKENS_MAX, LISTS_CHANGED, initialize_params, read_initialized
from adapters.mcp_client.listening import ACKNOWLEDGED_METHOD, SUBSCRIPTION_KEY, forward_if_granted, is_granted
from adapters.mcp_client.wire.eras import PROGRESS_KEY, json_string, legacy_params, modern_params
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
    error_of,
    members_of,
    notification_of,
    read_envelope,
    reply_of,
)
from adapters.mcp_client.wire.peer import ListenFilter, McpListener
from adapters.redaction.exchanges import begin_exchange

MESSAGES_MAX: Final = 1000  # messages of one call that its client has not received yet; more are dropped
CALLS_MAX: Final = 256  # concurrent calls on one channel
SEND_SECONDS: Final = 10.0
_EMPTY: Final = Raw(b"{}")

Send = Callable[[bytes], Awaitable[None]]


class ResponseQueue:
    """The messages for one request. A response is always queued."""

    def __init__(self) -> None:
        self._messages: deque[Envelope | UpstreamFault] = deque()
        self._has_message = asyncio.Event()

    def put(self, message: Envelope | UpstreamFault) -> None:
        if len(self._messages) < MESSAGES_MAX or isinstance(message, UpstreamFault) or message.method is UNSET:
            self._messages.append(message)
            self._has_message.set()

    async def take(self) -> Envelope:
        while not self._messages:
            self._has_message.clear()
            await self._has_message.wait()
        message = self._messages.popleft()
        if isinstance(message, UpstreamFault):
            raise message
        return message


class DuplexChannel:
    """An open channel. `has_one_client`: a message that names no request can only be for that client.

    On a shared channel, only messages with a request's own token or subscription id are delivered.
    """

    def __init__(self, send: Send, has_one_client: bool, on_list_changed: Callable[[], None] = lambda: None) -> None:
        self.send = send
        self._on_list_changed = on_list_changed  # called whenever the server announces a changed list
        self._has_one_client = has_one_client
        self._next_number = itertools.count(1).__next__
        self._open_requests: dict[int, ResponseQueue] = {}
        self._requests_with_messages: list[int] = []  # those of `_open_requests` with a receiving client, the latest last
        self._background_sends: set[asyncio.Task[None]] = set()
        self.listeners: list[tuple[McpListener, Callable[[], ListenFilter]]] = []
        self.end_fault: UpstreamFault | None = None
        self.messages_received = 0
        self.version = ""
        self.server_capabilities: Mapping[str, Any] = {}
        self.instructions = ""
        self.expected_tokens: deque[bytes] = deque(maxlen=EXPECTED_TOKENS_MAX)  # progress tokens, as JSON, of the server's own requests

    @property
    def is_modern(self) -> bool:
        return self.version == MODERN

    @property
    def is_busy(self) -> bool:
        return bool(self._open_requests or self.listeners)

    async def shake_hands(self, capabilities: str, seconds: float, *, discover_seconds: float | None) -> None:
        """Initializes the connection. None as `discover_seconds`: the server is not modern. Raises UpstreamFault and NotLegacy."""
        if discover_seconds is not None and await self._is_modern(min(discover_seconds, seconds / 2)):
            self.version = MODERN
            return
        exchange = await self.request("initialize", initialize_params(capabilities), seconds)
        result = read_initialized(exchange)
        self.version, self.server_capabilities, self.instructions = result.protocol_version, result.capabilities, result.instructions or ""
        await self.send(notification_of("notifications/initialized"))

    async def _is_modern(self, seconds: float) -> bool:
        """Probes for stdio of 2026-07-28: a result or a modern error proves it; any other error, or silence, does not."""
        try:
            answer = (await self.request("server/discover", modern_params({}), seconds)).answer
        except Unreachable:
            if self.end_fault is not None:
                raise
            return False
        if answer is None:
            return False
        if isinstance(answer.error, WireError):
            data = answer.error.data if isinstance(answer.error.data, dict) else {}
            supported = data.get("supported")
            return answer.error.code == UNSUPPORTED_VERSION and isinstance(supported, list) and MODERN in supported
        members = members_of(answer.result if answer.result is not UNSET else _EMPTY)
        self.instructions = json_string(members.get("instructions", _EMPTY))
        return f'"{MODERN}"'.encode() in bytes(members.get("supportedVersions", Raw(b"")))

    async def request(self, method: str, params: Any, seconds: float) -> Exchange:
        """Sends a request of the gateway's own. Raises UpstreamFault."""
        with self.open_request() as (number, mailbox):
            return await self._exchange(mailbox, number, envelope_of(number, method, params), seconds, None)

    async def call(self, request: McpRequest, extra_params: Mapping[str, Any], seconds: float) -> Exchange:
        """Sends a client's request, with additional members. Raises UpstreamFault and McpRefused."""
        with self.open_request() as (number, mailbox):
            params = {**self._params(request, number), **extra_params}
            envelope = envelope_of(number, request.method, params)
            try:
                if request.peer is None:
                    return await _record_exchange(request.method, envelope, self._exchange(mailbox, number, envelope, seconds, None))
                with ServerMessages(request, request.peer, number, None if self.is_modern else self) as messages:
                    return await _record_exchange(request.method, envelope, self._exchange(mailbox, number, envelope, seconds, messages))
            except (asyncio.CancelledError, McpRefused, UpstreamFault):
                self.send_in_background(
                    notification_of("notifications/cancelled", {"requestId": number, "reason": "the client no longer waits"})
                )
                raise

    async def _exchange(
        self, mailbox: ResponseQueue, number: int, body: bytes, seconds: float, server_messages: ServerMessages | None
    ) -> Exchange:
        if server_messages is not None:
            self._requests_with_messages.append(number)
        try:
            async with asyncio.timeout(max(seconds, 0.001)) as limit:
                if server_messages is not None:
                    server_messages.timeout = limit
                await self.send(body)
                while True:
                    message = await mailbox.take()
                    if message.method is UNSET:
                        return Exchange(200, {}, check_answer(message, number))
                    if server_messages is not None:
                        await server_messages.receive(message)
        except TimeoutError as error:
            raise Unreachable(LATE_TEXT, "timeout", Failure.LATE) from error
        finally:
            if server_messages is not None:
                self._requests_with_messages.remove(number)

    def _params(self, request: McpRequest, number: int) -> dict[str, Any]:
        """The parameters in the server's era, with a progress token that is unique on the channel."""
        if not self.is_modern:
            return legacy_params(request, number)
        params: dict[str, Any] = dict(members_of(request.params))
        if not request.is_modern:
            params = modern_params(params, request.peer, request.log_level)
        meta = params.get("_meta", {})
        meta = dict(members_of(meta)) if isinstance(meta, Raw) else dict(meta)
        if request.peer is not None and PROGRESS_KEY in meta:
            meta[PROGRESS_KEY] = number
        return {**params, "_meta": meta}

    def receive(self, line: bytes) -> None:
        """Handles one message without waiting for a client. Raises UpstreamFault for an invalid one."""
        message = read_envelope(line)
        self.messages_received += 1
        if message.method is UNSET:
            mailbox = self._open_requests.get(message.id) if isinstance(message.id, int) else None
            if mailbox is not None:
                mailbox.put(message)
            return
        method, params = str(message.method), members_of(message.params if message.params is not UNSET else _EMPTY)
        mailbox = self._open_requests.get(self._request_number_for(method, params) or 0)
        if mailbox is not None:
            mailbox.put(message)
        elif message.id is not None:
            refused = reply_of(message.id, {}) if method == "ping" else error_of(message.id, -32601, "there is no client to ask")
            self.send_in_background(refused)
        elif method in CHANGE_METHODS:
            self._publish_change(method, params)

    def _request_number_for(self, method: str, params: Members) -> int | None:
        """The number of the request that a message belongs to, or None."""
        if method in CHANGE_METHODS or method == ACKNOWLEDGED_METHOD:
            meta = params.get("_meta")
            named = members_of(meta).get(SUBSCRIPTION_KEY) if meta is not None else None
            return _parse_integer(named)
        if method == "notifications/progress":
            return _parse_integer(params.get(PROGRESS_KEY))
        return self._requests_with_messages[-1] if self._has_one_client and self._requests_with_messages else None

    async def publish_change(self, method: str, params: Raw) -> bool:
        return self._publish_change(method, members_of(params))

    def _publish_change(self, method: str, params: Members) -> bool:
        """Sends a change notification to all listeners for it. Returns whether there is one."""
        if method in LISTS_CHANGED:
            self._on_list_changed()
        granted_listeners = [(listener, wanted()) for listener, wanted in self.listeners if is_granted(wanted(), method, params)]
        for listener, granted in granted_listeners:
            self._run_in_background(forward_if_granted(listener, granted, method, params))
        return bool(granted_listeners)

    def expect_progress(self, token: bytes) -> None:
        self.expected_tokens.append(token)

    async def reply(self, body: bytes) -> None:
        await self.send(body)

    def send_in_background(self, body: bytes) -> None:
        """Sends without waiting, unless the channel has ended."""
        if self.end_fault is None:
            self._run_in_background(self._send_if_possible(body))

    async def _send_if_possible(self, body: bytes) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self.send(body)
        except (UpstreamFault, TimeoutError):
            return

    def _run_in_background(self, work: Awaitable[None]) -> None:
        if len(self._background_sends) >= MESSAGES_MAX:
            self._background_sends.pop().cancel()
        task = asyncio.ensure_future(work)
        self._background_sends.add(task)
        task.add_done_callback(self._background_sends.discard)

    def end(self, fault: UpstreamFault) -> None:
        """Ends the channel: every pending request fails."""
        if self.end_fault is None:
            self.end_fault = fault
            for mailbox in self._open_requests.values():
                mailbox.put(fault)

    @contextmanager
    def open_request(self) -> Iterator[tuple[int, ResponseQueue]]:
        """Reserves a request number and the queue for its messages."""
        if self.end_fault is not None:
            raise self.end_fault
        if len(self._open_requests) >= CALLS_MAX:
            raise NotSent("Too many concurrent calls to the server", f"{CALLS_MAX}")
        number = self._next_number()
        mailbox = self._open_requests[number] = ResponseQueue()
        try:
            yield number, mailbox
        finally:
            del self._open_requests[number]


def _parse_integer(text: Raw | None) -> int | None:
    return int(bytes(text)) if text is not None and bytes(text).isdigit() else None


async def _record_exchange(method: str, envelope: bytes, exchange: Awaitable[Exchange]) -> Exchange:
    """Returns the exchange, which is recorded where somebody tries the call."""
    record, found = begin_exchange(method, {}, envelope), await exchange
    if record is not None:
        record.begin_response(found.status, {})
        record.add_body(msgspec.json.encode(found.answer))
    return found
