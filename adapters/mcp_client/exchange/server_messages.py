"""What a server says and asks while one request is under way, brought to the client behind the request."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Protocol, Self

from msgspec import UNSET, Raw

from adapters.contract import UpstreamFault
from adapters.mcp_client.wire.eras import PROGRESS, lacking, question_for, severe_enough, wishes
from adapters.mcp_client.wire.messages import (
    MISSING_CAPABILITY,
    Envelope,
    McpRefused,
    McpRequest,
    Members,
    RequestId,
    encode,
    members_of,
    refusal_of,
    reply_of,
)
from adapters.mcp_client.wire.peer import Peer, PeerRefused

ANSWER_SECONDS: Final = 600.0  # that a client has for an answer, if whoever asks it sets no shorter time
QUESTIONS_MAX: Final = 16  # of one request, waiting for their answers
CHANGES: Final = frozenset(
    {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
    }
)
_COMPLETE: Final = "notifications/elicitation/complete"  # of the initialize era, like the next
_STATUS: Final = "notifications/tasks/status"
_EMPTY: Final = Raw(b"{}")


class Outlet(Protocol):
    """The way back to a server that asks, and to those who listen to its session."""

    async def reply(self, body: bytes) -> None:
        """Raises UpstreamFault."""
        ...

    async def changed(self, method: str, params: Raw) -> bool:
        """Whether anybody listens."""
        ...

    def expect(self, token: bytes) -> None:
        """The server wants to hear how its question goes on, under this token (JSON)."""
        ...


class Hearing:
    """To be entered while the request is under way; questions that are open when it ends are withdrawn from the client.

    `token` is the progress token that the server was given in place of the client's, if any was. Without an `outlet` a server must not ask.
    """

    def __init__(self, request: McpRequest, peer: Peer, token: RequestId | None = None, outlet: Outlet | None = None) -> None:
        self._request = request
        self._peer = peer
        self._outlet = outlet
        self._wishes = wishes(request)
        self._token = self._wishes.token if token is None else Raw(encode(token))
        self._open: dict[RequestId, asyncio.Task[None]] = {}
        self._task: Any = None
        self._error: BaseException | None = None
        self._left: float | None = None  # of the call's time, while it stands still
        self.limit: asyncio.Timeout | None = None

    @property
    def level(self) -> str | None:
        """From which level on logs are wanted; None: none are."""
        return self._wishes.level

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for task in self._open.values():
            task.cancel()
        task, self._task = self._task, None
        if self._error is not None and task is not None and task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
            raise self._error

    async def heard(self, message: Envelope) -> None:
        """Takes a notification or a question. Raises UpstreamFault for what no server may send."""
        method = str(message.method)
        params = members_of(message.params if message.params is not UNSET else _EMPTY)
        if message.id is not None:
            await self._question(message.id, method, params)
        elif method == "notifications/progress":
            await self._progress(params)
        elif method == "notifications/message":
            if self._wishes.level is not None and severe_enough(params, self._wishes.level):
                await self._peer.notify(method, Raw(encode(params)))
        elif method == "notifications/cancelled":
            self._withdrawn(params)
        elif method in CHANGES:
            await self._changed(method, Raw(encode(params)))
        elif not self._request.modern and (method == _COMPLETE or (method == _STATUS and self._request.method.startswith("tasks/"))):
            await self._peer.notify(method, Raw(encode(params)))

    async def _progress(self, params: Members) -> None:
        theirs, given = self._wishes.token, params.get(PROGRESS)
        if theirs is not None and self._token is not None and given is not None and bytes(given) == bytes(self._token):
            await self._peer.notify("notifications/progress", Raw(encode({**params, PROGRESS: theirs})))

    async def _changed(self, method: str, params: Raw) -> None:
        listened = self._outlet is not None and await self._outlet.changed(method, params)
        if self._outlet is not None and not listened and not self._request.modern:
            await self._peer.notify(method, params)

    async def _question(self, asked: RequestId, method: str, params: Members) -> None:
        if self._outlet is None:
            raise UpstreamFault("The server asks back, which its protocol does not allow", method[:100])
        if method == "ping":
            await self._outlet.reply(reply_of(asked, {}))
        elif asked in self._open or len(self._open) >= QUESTIONS_MAX:
            await self._outlet.reply(refusal_of(asked, -32603, "too many questions at once"))
        else:
            self._stand_still()
            token = members_of(params.get("_meta", _EMPTY)).get(PROGRESS)
            if token is not None:
                self._outlet.expect(bytes(token))
            task = self._open[asked] = asyncio.create_task(self._ask(self._outlet, asked, method, params))
            task.add_done_callback(lambda ended: self._answered(asked, ended))

    async def _ask(self, outlet: Outlet, asked: RequestId, method: str, params: Members) -> None:
        try:
            self._check(method, params)
            body = reply_of(asked, await self._peer.ask(method, question_for(self._request.modern, False, method, params)))
        except PeerRefused as refused:
            body = refusal_of(asked, refused.code, refused.message)
        await outlet.reply(body)

    def _check(self, method: str, params: Members) -> None:
        """Raises PeerRefused, or McpRefused where the client could make its request again with the capability declared."""
        needed = lacking(self._peer, method, params)
        if needed and self._request.modern:
            raise McpRefused(MISSING_CAPABILITY, method, {"requiredCapabilities": needed})
        if needed is not None:
            raise PeerRefused(-32602 if needed.get("elicitation") else -32601, "the client did not declare that it can do this")

    def _answered(self, asked: RequestId, task: asyncio.Task[None]) -> None:
        self._open.pop(asked, None)
        if not self._open:
            self._go_on()
        error = None if task.cancelled() else task.exception()
        if error is not None and self._error is None and self._task is not None:
            self._error = error
            self._task.cancel()

    def _stand_still(self) -> None:
        """The time in which the client thinks does not count, within bounds."""
        now = asyncio.get_running_loop().time()
        if self._left is None and self.limit is not None and self.limit.when() is not None and not self.limit.expired():
            self._left = (self.limit.when() or now) - now
            self.limit.reschedule(now + ANSWER_SECONDS)

    def _go_on(self) -> None:
        if self._left is not None and self.limit is not None and self._task is not None and not self.limit.expired():
            with suppress(RuntimeError):  # the answer came meanwhile
                self.limit.reschedule(asyncio.get_running_loop().time() + self._left)
            self._left = None

    def _withdrawn(self, params: Members) -> None:
        given = bytes(params.get("requestId", _EMPTY))
        for asked, task in self._open.items():
            if encode(asked) == given:
                task.cancel()
