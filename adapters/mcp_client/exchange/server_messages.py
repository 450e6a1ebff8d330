"""Passes on a server's messages and questions during one request to the client behind it."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Protocol, Self

from msgspec import UNSET, Raw

from adapters.contract import UpstreamFault
from adapters.mcp_client.wire.eras import PROGRESS_KEY, is_severe_enough, missing_capabilities, parse_wishes, translate_question
from adapters.mcp_client.wire.messages import (
    MISSING_CAPABILITY,
    Envelope,
    McpRefused,
    McpRequest,
    Members,
    RequestId,
    encode,
    error_of,
    members_of,
    reply_of,
)
from adapters.mcp_client.wire.peer import McpPeer, PeerRefused

ANSWER_SECONDS: Final = 600.0  # for a client's answer, unless the client set a shorter time
QUESTIONS_MAX: Final = 16  # unanswered questions of one request
CHANGE_METHODS: Final = frozenset(
    {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
    }
)
_ELICITATION_COMPLETE: Final = "notifications/elicitation/complete"  # of the legacy era, like the next
_TASK_STATUS: Final = "notifications/tasks/status"
_EMPTY: Final = Raw(b"{}")


class ReplyChannel(Protocol):
    """Sends replies to the server that asked, and passes changes to the listeners of its session."""

    async def reply(self, body: bytes) -> None:
        """Sends a reply. Raises UpstreamFault."""
        ...

    async def publish_change(self, method: str, params: Raw) -> bool:
        """Passes on a change notification. Returns whether there is a listener."""
        ...

    def expect_progress(self, token: bytes) -> None:
        """Expects progress notifications for a question of the server under this token (JSON)."""
        ...


class ServerMessages:
    """A context manager for one request's messages; on exit, open questions are withdrawn from the client.

    `progress_token` replaces the client's in the request, if set. Without a `reply_channel` the server may not ask.
    """

    def __init__(
        self, request: McpRequest, peer: McpPeer, progress_token: RequestId | None = None, reply_channel: ReplyChannel | None = None
    ) -> None:
        self._request = request
        self._peer = peer
        self._reply_channel = reply_channel
        self._wishes = parse_wishes(request)
        self._progress_token = progress_token
        self._open_questions: dict[RequestId, asyncio.Task[None]] = {}
        self._task: Any = None
        self._error: BaseException | None = None
        self._seconds_left: float | None = None  # of the call's time while it is paused
        self.timeout: asyncio.Timeout | None = None

    @property
    def log_level(self) -> str | None:
        """The lowest level of wanted logs; None: no logs are wanted."""
        return self._wishes.log_level

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for task in self._open_questions.values():
            task.cancel()
        task, self._task = self._task, None
        if self._error is not None and task is not None and task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
            raise self._error

    async def receive(self, message: Envelope) -> None:
        """Handles a notification or a question. Raises UpstreamFault for an invalid one."""
        method = str(message.method)
        params = members_of(message.params if message.params is not UNSET else _EMPTY)
        if message.id is not None:
            await self._start_question(message.id, method, params)
        elif method == "notifications/progress":
            await self._forward_progress(params)
        elif method == "notifications/message":
            if self._wishes.log_level is not None and is_severe_enough(params, self._wishes.log_level):
                await self._peer.notify(method, Raw(encode(params)))
        elif method == "notifications/cancelled":
            self._cancel_question(params)
        elif method in CHANGE_METHODS:
            await self._forward_change(method, Raw(encode(params)))
        elif not self._request.is_modern and (
            method == _ELICITATION_COMPLETE or (method == _TASK_STATUS and self._request.method.startswith("tasks/"))
        ):
            await self._peer.notify(method, Raw(encode(params)))

    async def _forward_progress(self, params: Members) -> None:
        client_token, token = self._wishes.progress_token, params.get(PROGRESS_KEY)
        if client_token is None or token is None:
            return
        expected = bytes(client_token) if self._progress_token is None else encode(self._progress_token)
        if bytes(token) == expected:
            await self._peer.notify("notifications/progress", Raw(encode({**params, PROGRESS_KEY: client_token})))

    async def _forward_change(self, method: str, params: Raw) -> None:
        listened = self._reply_channel is not None and await self._reply_channel.publish_change(method, params)
        if self._reply_channel is not None and not listened and not self._request.is_modern:
            await self._peer.notify(method, params)

    async def _start_question(self, question_id: RequestId, method: str, params: Members) -> None:
        if self._reply_channel is None:
            raise UpstreamFault("The server sent a request, which its protocol does not allow", method[:100])
        if method == "ping":
            await self._reply_channel.reply(reply_of(question_id, {}))
        elif question_id in self._open_questions or len(self._open_questions) >= QUESTIONS_MAX:
            await self._reply_channel.reply(error_of(question_id, -32603, "too many questions at once"))
        else:
            self._pause_timeout()
            token = members_of(params.get("_meta", _EMPTY)).get(PROGRESS_KEY)
            if token is not None:
                self._reply_channel.expect_progress(bytes(token))
            task = self._open_questions[question_id] = asyncio.create_task(
                self._forward_question(self._reply_channel, question_id, method, params)
            )
            task.add_done_callback(lambda ended: self._end_question(question_id, ended))

    async def _forward_question(self, reply_channel: ReplyChannel, question_id: RequestId, method: str, params: Members) -> None:
        try:
            self._check_capabilities(method, params)
            body = reply_of(question_id, await self._peer.ask(method, translate_question(self._request.is_modern, False, method, params)))
        except PeerRefused as refused:
            body = error_of(question_id, refused.code, refused.message)
        await reply_channel.reply(body)

    def _check_capabilities(self, method: str, params: Members) -> None:
        """Raises PeerRefused, or McpRefused where the client could repeat its request with the capability declared."""
        needed = missing_capabilities(self._peer, method, params)
        if needed and self._request.is_modern:
            raise McpRefused(MISSING_CAPABILITY, method, {"requiredCapabilities": needed})
        if needed is not None:
            raise PeerRefused(-32602 if needed.get("elicitation") else -32601, "the client did not declare this capability")

    def _end_question(self, question_id: RequestId, task: asyncio.Task[None]) -> None:
        self._open_questions.pop(question_id, None)
        if not self._open_questions:
            self._resume_timeout()
        error = None if task.cancelled() else task.exception()
        if error is not None and self._error is None and self._task is not None:
            self._error = error
            self._task.cancel()

    def _pause_timeout(self) -> None:
        """Pauses the call's timeout while the client answers, for at most ANSWER_SECONDS."""
        now = asyncio.get_running_loop().time()
        if self._seconds_left is None and self.timeout is not None and self.timeout.when() is not None and not self.timeout.expired():
            self._seconds_left = (self.timeout.when() or now) - now
            self.timeout.reschedule(now + ANSWER_SECONDS)

    def _resume_timeout(self) -> None:
        if self._seconds_left is not None and self.timeout is not None and self._task is not None and not self.timeout.expired():
            with suppress(RuntimeError):  # the response has arrived
                self.timeout.reschedule(asyncio.get_running_loop().time() + self._seconds_left)
            self._seconds_left = None

    def _cancel_question(self, params: Members) -> None:
        request_id = bytes(params.get("requestId", _EMPTY))
        for question_id, task in self._open_questions.items():
            if encode(question_id) == request_id:
                task.cancel()
