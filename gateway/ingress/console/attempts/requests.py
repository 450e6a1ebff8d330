"""Requests of the console to the protocol servers, in the name of the session's person: the way of any client, without a token."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any, Final

from adapters.redaction.exchanges import ExchangeRecord, ExchangeRecorder, RawExchange, recording_with
from gateway.concurrency.background import run_in_background
from gateway.ingress.http.asgi import Scope
from gateway.ingress.http.authentication import PROTOCOLS_KEY, SESSION_CALLER_KEY
from policies.callers import Caller

LIST_MAX: Final = 16 << 20  # bytes of a list of tools
EVENT_MAX: Final = 1 << 20  # bytes of one message that is read; longer ones are only counted
PAUSE_SECONDS: Final = 0.25  # between two pictures of a call that goes on
LIST_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 5.0  # that a call has to end after its client has left
Fold = Callable[[Any], None]


class Attempt:
    """One request to a protocol server. `fold` takes each JSON message of the answer, and None for one that is too long to be read."""

    def __init__(self, scope: Scope, path: str, headers: Mapping[str, str], body: Any, fold: Fold, *, message_max: int = EVENT_MAX) -> None:
        """`scope` is that of the request to the server, without path, headers and body. `message_max`: bytes of a message that is read."""
        self._scope = scope
        self._path = path
        self._headers = {"content-type": "application/json", "accept": "application/json, text/event-stream", **headers}
        self._body = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        self._fold = fold
        self._changed = asyncio.Event()
        self._gone = asyncio.Event()
        self._task: asyncio.Future[None] | None = None
        self._caller_side = ExchangeRecord(f"POST {path}", self._headers, self._body)
        self._recorder = ExchangeRecorder()
        self._upstream_side: list[RawExchange] | None = None  # when the call is over
        self._messages = _Messages(message_max)
        self._status = 0

    @property
    def has_ended(self) -> bool:
        """Whether the answer is complete."""
        return self._task is not None and self._task.done()

    @property
    def caller_side(self) -> RawExchange:
        """The request and the answer, as a client of the gateway has them."""
        return self._caller_side.to_exchange(None)

    @property
    def upstream_side(self) -> list[RawExchange]:
        """What the gateway has sent on, and what came back, without secrets."""
        return self._upstream_side if self._upstream_side is not None else self._recorder.exchanges()

    @property
    def left_out(self) -> int:
        """How many exchanges are not shown, because there are too many."""
        return self._recorder.left_out

    @property
    def decision_id(self) -> str:
        """The decision that allowed the call; empty as long as there is none."""
        return self._recorder.decision_id

    async def changes(self, seconds: float) -> AsyncGenerator[None, None]:
        """Sends the request, and yields whenever there is more to see, the last time when the answer is complete, or after `seconds`.

        A caller that stops to iterate has left: the request ends as that of a client that disconnects.
        """
        with recording_with(self._recorder):
            self._task = run_in_background(self._run(), "attempt_failed")
        ends_at = asyncio.get_running_loop().time() + seconds
        changed = asyncio.create_task(self._changed.wait())
        try:
            while not self._task.done() and (left := ends_at - asyncio.get_running_loop().time()) > 0:
                await asyncio.wait((self._task, changed), timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if not self._task.done() and changed.done():
                    await asyncio.wait((self._task,), timeout=min(PAUSE_SECONDS, left))  # more may come at once
                self._changed.clear()
                if changed.done():
                    changed = asyncio.create_task(self._changed.wait())
                if not self._task.done():
                    yield
            yield
        finally:
            changed.cancel()
            await self._leave()

    async def _leave(self) -> None:
        """Ends a request that is still going on, as if its client had disconnected."""
        self._gone.set()
        if self._task is not None and not self._task.done():
            await asyncio.wait((self._task,), timeout=CLOSE_SECONDS)
            self._task.cancel()
        self._upstream_side = self._recorder.exchanges()
        self._recorder.close()

    async def _run(self) -> None:
        path = self._path
        content = {"content-length": str(len(self._body)), **self._headers}
        scope = {
            **self._scope,
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "headers": [*self._scope["headers"], *((name.encode(), value.encode()) for name, value in content.items())],
        }
        try:
            await self._scope[PROTOCOLS_KEY](scope, self._receiver(), self._send)
        finally:
            self._messages.finish(self._fold)

    def _receiver(self) -> Callable[[], Any]:
        messages = [{"type": "http.request", "body": self._body, "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await self._gone.wait()
            return {"type": "http.disconnect"}

        return receive

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
            self._status = message["status"]
            self._messages.is_stream = headers.get("content-type", "").startswith("text/event-stream")
            self._caller_side.begin_response(self._status, headers)
            return
        chunk = message.get("body", b"")
        self._caller_side.add_body(chunk)
        if self._messages.add(chunk, self._fold):
            self._changed.set()


class ProtocolClient:
    """Makes requests to the protocol servers as `caller`, from a request of a browser."""

    def __init__(self, caller: Caller, scope: Scope) -> None:
        self._caller = caller
        self._scope = scope

    async def read(self, path: str, headers: Mapping[str, str], body: Any) -> dict[str, Any]:
        """Returns the JSON-RPC message that answers a request; an empty one where there is none."""
        answers: list[Any] = []
        attempt = self.attempt(path, headers, body, answers.append, message_max=LIST_MAX)
        async with aclosing(attempt.changes(LIST_SECONDS)) as changes:
            async for _ in changes:
                pass
        return answers[-1] if answers and isinstance(answers[-1], dict) else {}

    def attempt(self, path: str, headers: Mapping[str, str], body: Any, fold: Fold, *, message_max: int = EVENT_MAX) -> Attempt:
        """Returns a request that is not sent yet."""
        host = [(name, value) for name, value in self._scope["headers"] if name == b"host"]
        names = ("type", "asgi", "http_version", "scheme", "client", "server", PROTOCOLS_KEY)
        kept = {name: self._scope.get(name) for name in names}
        scope: Scope = {**kept, "state": {}, "root_path": "", "query_string": b"", "headers": host, SESSION_CALLER_KEY: self._caller}
        return Attempt(scope, path, headers, body, fold, message_max=message_max)


class _Messages:
    """The JSON messages of an answer: one body, or server-sent events. Keeps at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.is_stream = False
        self._kept = bytearray()
        self._is_too_long = False

    def add(self, chunk: bytes, fold: Fold) -> bool:
        """Takes the next bytes. Returns whether they completed a message."""
        if not self.is_stream:
            self._keep(chunk)
            return False
        *complete, rest = chunk.split(b"\n\n")
        for each in complete:
            self._keep(each)
            self._end_event(fold)
        self._keep(rest)
        return bool(complete)

    def finish(self, fold: Fold) -> None:
        """Takes the end of the answer."""
        if self.is_stream:
            self._end_event(fold)
        elif self._kept or self._is_too_long:
            self._fold(bytes(self._kept), fold)

    def _keep(self, chunk: bytes) -> None:
        if self._is_too_long or len(self._kept) + len(chunk) > self._limit:
            self._is_too_long = True
            self._kept.clear()
        else:
            self._kept += chunk

    def _end_event(self, fold: Fold) -> None:
        lines = bytes(self._kept).split(b"\n")
        data = b"\n".join(line.removeprefix(b"data:").removeprefix(b" ") for line in lines if line.startswith(b"data:"))
        if data or self._is_too_long:
            self._fold(data, fold)
        self._kept.clear()
        self._is_too_long = False

    def _fold(self, data: bytes, fold: Fold) -> None:
        if self._is_too_long:
            fold(None)
            return
        with suppress(ValueError, RecursionError):  # what is no JSON is shown as it came
            fold(json.loads(data))
