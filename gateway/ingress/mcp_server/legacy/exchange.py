"""One request of an older client under way: the Peer that hears what a server says meanwhile and answers what it asks."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from adapters.mcp_client.wire.peer import PeerRefused
from gateway.ingress.http.errors import InvalidRequest
from gateway.ingress.mcp_server.legacy.question_ids import Marks
from gateway.ingress.mcp_server.legacy.streams import Stream, Streams
from gateway.ingress.mcp_server.protocol.client_wishes import Wanted, lacking
from gateway.ingress.mcp_server.protocol.response import Outlet, event
from gateway.ingress.mcp_server.protocol.sessions import Session
from gateway.storage.mailbox import Mailbox

ANSWER_SECONDS = 300.0  # for which a person may think about a question
ANSWER_MAX = 4 << 20  # bytes
LETTER_SECONDS = 60.0  # for which an answer is kept for whoever asked
BEGIN_SECONDS = 2.0  # after which a request that is still under way becomes a stream, which can be gone on with
UNASKABLE, LATE = -32601, -32001
encode = msgspec.json.Encoder().encode


class _Error(Struct):
    code: int = -32603
    message: str = ""


class _Answer(Struct):
    id: str | int | None = None
    result: Raw | UnsetType = UNSET
    error: _Error | None = None


_answer = msgspec.json.Decoder(_Answer).decode


@dataclass(frozen=True, slots=True)
class Line:
    """What an older client's requests and streams are served with. `now` counts seconds since 1970."""

    mailbox: Mailbox
    streams: Streams
    marks: Marks
    now: Callable[[], float]


class Exchange:
    """Without a session nothing can be asked, and nothing gone on with. What is said goes to the request's own stream."""

    def __init__(self, line: Line, session: Session | None, outlet: Outlet, wanted: Wanted) -> None:
        self._line = line
        self._session = session
        self._outlet = outlet
        self._wanted = wanted
        self._stream: Stream | None = line.streams.open(session) if session else None
        self._beginning: asyncio.TimerHandle | None = None
        if self._stream is not None and self._stream.first():
            self._beginning = asyncio.get_running_loop().call_later(BEGIN_SECONDS, self._begin)

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return self._session.capabilities if self._session else {}

    async def notify(self, method: str, params: Raw) -> None:
        if self._wanted.takes(method, params):
            self._say(b'{"jsonrpc":"2.0","method":%s,"params":%s}' % (encode(method), params))

    async def ask(self, method: str, params: Raw) -> Raw:
        session = self._session
        if session is None or lacking(session.capabilities, method, params):
            raise PeerRefused(UNASKABLE, "The client did not declare that it can be asked this")
        return await asked(self._line, session, self._say, (method, params))

    @property
    def streaming(self) -> bool:
        return self._outlet.streaming

    async def abandon(self) -> None:
        """Ends without an answer, which nobody wants any more."""
        self.stop()
        if self._outlet.streaming and self._stream is not None:
            self._stream.last(b"")
            await self._outlet.end()
        else:
            await self._outlet.finish(b"", 202)

    async def finish(self, body: bytes, status: int = 200, headers: Any = ()) -> None:
        """The answer, wherever it has to go."""
        self.stop()
        event_id = self._stream.last(body) if self._stream is not None and self._outlet.streaming else ""
        await self._outlet.finish(body, status, headers, event_id)

    def stop(self) -> None:
        if self._beginning is not None:
            self._beginning.cancel()

    def _begin(self) -> None:
        if self._stream is not None and not self._outlet.streaming:
            self._outlet.say(self._stream.first())

    def _say(self, body: bytes) -> bool:
        self._begin()
        return self._outlet.say(self._stream.event(body) if self._stream is not None else event(body))


async def asked(line: Line, session: Session, say: Any, question: tuple[str, Raw]) -> Raw:
    """Asks the session's client, and waits until it answers, to whichever process. Raises PeerRefused."""
    method, params = question
    number = line.marks.new(session.id)
    if not say(b'{"jsonrpc":"2.0","id":%s,"method":%s,"params":%s}' % (encode(number), encode(method), params)):
        raise PeerRefused(UNASKABLE, "The client reads no questions")
    try:
        answer = _answer(await line.mailbox.wait(_address(session, number), ANSWER_SECONDS))
    except TimeoutError:
        raise PeerRefused(LATE, "The client did not answer in time") from None
    except msgspec.MsgspecError:
        raise PeerRefused(-32603, "The client's answer is none") from None
    if answer.error is not None:
        raise PeerRefused(answer.error.code, answer.error.message[:1000])
    if answer.result is UNSET or bytes(answer.result)[:1] != b"{":
        raise PeerRefused(-32603, "The client's answer is none")
    return answer.result


async def take(line: Line, session: Session, answer_id: Any, raw: bytes) -> None:
    """An answer that a client sent, for whoever asked it; one to no question of ours is thrown away. Raises InvalidRequest, TooMuchKept."""
    if not isinstance(answer_id, str) or not line.marks.ours(answer_id, session.id):
        return
    if len(raw) > ANSWER_MAX:
        raise InvalidRequest(f"an answer is larger than {ANSWER_MAX} bytes")
    await line.mailbox.send(_address(session, answer_id), raw, LETTER_SECONDS, folder=f"answer/{session.id}/")


def _address(session: Session, number: str) -> str:
    return f"answer/{session.id}/{number}"
