"""One request of a legacy client in flight: the McpPeer that sends its client notifications and questions of the server."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from adapters.mcp_client.wire.peer import PeerRefused
from gateway.ingress.http.errors import InvalidRequest
from gateway.ingress.mcp_server.legacy.long_requests import LongRequests
from gateway.ingress.mcp_server.legacy.question_ids import QuestionIds
from gateway.ingress.mcp_server.legacy.streams import Stream, Streams, is_primed
from gateway.ingress.mcp_server.protocol.client_wishes import ClientWishes, missing_capabilities
from gateway.ingress.mcp_server.protocol.response import HttpResponseWriter, frame_event
from gateway.ingress.mcp_server.protocol.sessions import McpSession
from gateway.storage.mailbox import ProcessMailbox

ANSWER_SECONDS = 300.0  # a question waits that long for its answer
ANSWER_BYTES_MAX = 4 << 20  # bytes
MAIL_SECONDS = 60.0  # an answer waits that long for the process that asked
NOT_ASKABLE_CODE, TIMEOUT_CODE = -32601, -32001
encode = msgspec.json.Encoder().encode


class _ResponseError(Struct):
    code: int = -32603
    message: str = ""


class _ClientResponse(Struct):
    id: str | int | None = None
    result: Raw | UnsetType = UNSET
    error: _ResponseError | None = None


_decode_response = msgspec.json.Decoder(_ClientResponse).decode


@dataclass(frozen=True, slots=True)
class LegacyContext:
    """What requests and streams of legacy clients need. `now` returns seconds since 1970.

    A request that is in flight for `stream_after_seconds` becomes a stream, which the client can resume.
    """

    mailbox: ProcessMailbox
    streams: Streams
    question_ids: QuestionIds
    now: Callable[[], float]
    stream_after_seconds: float


class LegacyExchange:
    """Sends notifications and questions on the request's own stream. Without a session it can't ask, and its stream can't resume."""

    def __init__(
        self,
        legacy_context: LegacyContext,
        session: McpSession | None,
        response: HttpResponseWriter,
        wishes: ClientWishes,
        long_requests: LongRequests,
    ) -> None:
        """`long_requests` calls what makes a request a stream once it has been in flight for long."""
        self._legacy_context = legacy_context
        self._session = session
        self._response = response
        self._wishes = wishes
        self._stream: Stream | None = None  # opened when the request becomes a stream, since most end before
        self._long_requests = long_requests
        if session is not None and is_primed(session):
            long_requests.add(self._begin_stream)

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return self._session.capabilities if self._session else {}

    async def notify(self, method: str, params: Raw) -> None:
        if self._wishes.wants(method, params):
            self._send_event(b'{"jsonrpc":"2.0","method":%s,"params":%s}' % (encode(method), params))

    async def ask(self, method: str, params: Raw) -> Raw:
        session = self._session
        if session is None or missing_capabilities(session.capabilities, method, params):
            raise PeerRefused(NOT_ASKABLE_CODE, "The client did not declare the capability for this request")
        return await ask_client(self._legacy_context, session, self._send_event, method, params)

    @property
    def is_streaming(self) -> bool:
        return self._response.is_streaming

    async def abandon(self) -> None:
        """Ends a canceled request without an answer."""
        stream = self._open_stream() if self._response.is_streaming else None
        if stream is None:
            await self._response.finish(b"", 202)
        else:
            stream.record_last_event(b"")
            await self._response.end()

    def finish(self, body: bytes, status: int = 200, headers: Any = ()) -> Awaitable[None]:
        """Sends the answer, as the last event where the request has become a stream."""
        stream = self._open_stream() if self._response.is_streaming else None
        return self._response.finish(body, status, headers, "" if stream is None else stream.record_last_event(body))

    def cancel_stream_start(self) -> None:
        """Ends the wait after which the request becomes a stream."""
        self._long_requests.remove(self._begin_stream)

    def _open_stream(self) -> Stream | None:
        """Returns the stream that can resume; None without a session."""
        if self._stream is None and self._session is not None:
            self._stream = self._legacy_context.streams.open(self._session)
        return self._stream

    def _begin_stream(self) -> None:
        stream = self._open_stream()
        if stream is not None and not self._response.is_streaming:
            self._response.send_event(stream.priming_event())

    def _send_event(self, body: bytes) -> bool:
        self._begin_stream()
        return self._response.send_event(frame_event(body) if self._stream is None else self._stream.record_event(body))


async def ask_client(legacy_context: LegacyContext, session: McpSession, send: Any, method: str, params: Raw) -> Raw:
    """Asks the session's client, and returns its answer, which may reach any process. Raises PeerRefused."""
    number = legacy_context.question_ids.new_id(session.id)
    if not send(b'{"jsonrpc":"2.0","id":%s,"method":%s,"params":%s}' % (encode(number), encode(method), params)):
        raise PeerRefused(NOT_ASKABLE_CODE, "The client's stream is not open")
    try:
        answer = _decode_response(await legacy_context.mailbox.wait_for(_answer_address(session, number), ANSWER_SECONDS))
    except TimeoutError:
        raise PeerRefused(TIMEOUT_CODE, "The client did not answer in time") from None
    except msgspec.MsgspecError:
        raise PeerRefused(-32603, "The client's response is not valid") from None
    if answer.error is not None:
        raise PeerRefused(answer.error.code, answer.error.message[:1000])
    if answer.result is UNSET or bytes(answer.result)[:1] != b"{":
        raise PeerRefused(-32603, "The client's response is not valid")
    return answer.result


async def accept_response(legacy_context: LegacyContext, session: McpSession, question_id: Any, raw: bytes) -> None:
    """Passes a client's response to the process that asked; a response to an unknown question is ignored.

    Raises InvalidRequest, MailboxFull.
    """
    if not isinstance(question_id, str) or not legacy_context.question_ids.is_issued(question_id, session.id):
        return
    if len(raw) > ANSWER_BYTES_MAX:
        raise InvalidRequest(f"a response is larger than {ANSWER_BYTES_MAX} bytes")
    await legacy_context.mailbox.send(_answer_address(session, question_id), raw, MAIL_SECONDS, folder=f"answer/{session.id}/")


def _answer_address(session: McpSession, question_id: str) -> str:
    return f"answer/{session.id}/{question_id}"
