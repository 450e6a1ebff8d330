"""Streams of notifications: `subscriptions/listen` of modern clients, GET streams of legacy clients."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from adapters.mcp_client.wire.messages import INVALID_PARAMS, META_PREFIX
from gateway.calls.limits.open_streams import OpenStreams
from gateway.concurrency.background import run_in_background
from gateway.ingress.http.authentication import RequestAuthentication
from gateway.ingress.mcp_server.legacy.exchange import LegacyContext
from gateway.ingress.mcp_server.legacy.exchange import ask_client as ask_client
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.response import HttpResponseWriter, frame_event
from gateway.ingress.mcp_server.protocol.sessions import McpSession, McpSessions
from gateway.ingress.mcp_server.subscriptions.confirmations import CONFIRM_SECONDS, Confirmations
from gateway.ingress.mcp_server.subscriptions.notifications import POLL_SECONDS, RESOURCE_UPDATED, Interest, NotificationFeed, Subscriber
from gateway.ingress.mcp_server.tasks.feed import TaskFeed, parse_task_ids
from policies.callers import Caller
from policies.delegation.kills import Killed
from policies.tokens.verifier import TokenRefused
from registry.health.reachability import NotReachable

URIS_MAX = 1000
RESUMED_MAX = 8  # resumed streams of one session at a time; a further one ends the oldest
LIST_CHANGED_FLAGS = ("toolsListChanged", "promptsListChanged", "resourcesListChanged")
OPENING_COMMENT = b": open\n\n"
ACKNOWLEDGED_METHOD = "notifications/subscriptions/acknowledged"
PUBLISHED_POLL_SECONDS = 0.05  # between two reads of the confirmations of another process
SUBSCRIPTION_ID_KEY = META_PREFIX + "subscriptionId"
encode = msgspec.json.Encoder().encode


class ThisProcess(NamedTuple):
    """The id of this process, and the check whether another process is alive."""

    process: str
    is_alive: Callable[[str], Awaitable[bool]]


class _RemoteStreams:
    """Reads what other processes publish about their streams."""

    def __init__(self, sessions: McpSessions, this_process: ThisProcess) -> None:
        self._sessions = sessions
        self._this_process = this_process

    async def is_confirmed(self, session: McpSession, uri: str, stream_process: str) -> bool:
        """Returns whether the stream of another process is subscribed to a resource; True without a stream. Raises NotReachable."""
        async for held in self._poll_confirmed(session, stream_process):
            if held is None:
                return True
            if uri in held:
                return held[uri]
        raise NotReachable

    async def wait_until_unsubscribed(self, session: McpSession, uri: str, stream_process: str) -> None:
        """Returns when the stream is no longer subscribed to a resource, at the latest after CONFIRM_SECONDS."""
        async for held in self._poll_confirmed(session, stream_process):
            if held is None or not held.get(uri):
                return

    async def _poll_confirmed(self, session: McpSession, stream_process: str) -> AsyncIterator[Mapping[str, bool] | None]:
        """Yields the confirmations of the process for CONFIRM_SECONDS, at intervals; None if the process has no stream."""
        now = asyncio.get_running_loop().time
        until = now() + CONFIRM_SECONDS
        other = bool(stream_process) and stream_process != self._this_process.process
        while now() < until:
            yield (
                await self._sessions.read_confirmed(session, stream_process)
                if other and await self._this_process.is_alive(stream_process)
                else None
            )
            await asyncio.sleep(PUBLISHED_POLL_SECONDS)


class _RunningStreams:
    """The open streams, each with the future that stops it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._closing = False
        self._callers_by_stop: dict[asyncio.Future[None], Caller] = {}

    def close(self) -> None:
        self._closing = True
        for stop in self._callers_by_stop:
            _stop(stop)

    def close_killed(self, is_killed: Callable[[str, str], bool]) -> None:
        for stop, caller in self._callers_by_stop.items():
            if is_killed(caller.principal.owner_key, caller.delegation.actor):
                _stop(stop)

    async def run_until_stopped(
        self,
        caller: Caller,
        response: HttpResponseWriter,
        work: Coroutine[Any, Any, None],
        stop: asyncio.Future[None],
        begin_stream: Callable[[], Awaitable[None]],
    ) -> None:
        """Runs `work` until the client disconnects, `stop` is done, the caller's token expires or `work` ends.

        `begin_stream` sends the first event once changes of lists are noticed and the servers have confirmed its subscriptions.
        """
        work_task = run_in_background(work, "mcp_stream_broke")
        self._callers_by_stop[stop] = caller
        if self._closing:
            _stop(stop)
        left = max(0.0, caller.expires - self._now())
        opening, leaving = asyncio.ensure_future(begin_stream()), asyncio.ensure_future(response.wait_for_disconnect())
        try:
            await asyncio.wait([opening, leaving, work_task, stop], timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
                await asyncio.wait([work_task, response.stream_task, stop], timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._callers_by_stop.pop(stop, None)
            for task in (work_task, opening, leaving):
                task.cancel()
            await asyncio.gather(work_task, opening, leaving, return_exceptions=True)


class NotificationStreams:
    """Serves streams of notifications. A stream ends in order when the gateway closes or the caller's token is no longer valid."""

    def __init__(
        self,
        authentication: RequestAuthentication,
        feed: NotificationFeed,
        task_feed: TaskFeed,
        sessions: McpSessions,
        legacy_context: LegacyContext,
        *,
        open_streams: OpenStreams,
        this_process: ThisProcess,
    ) -> None:
        self._authentication = authentication
        self._process = this_process.process
        self._feed, self._task_feed = feed, task_feed
        self._sessions = sessions
        self._remote_streams = _RemoteStreams(sessions, this_process)
        self._streams = legacy_context.streams
        self._legacy_context = legacy_context
        self._open_streams = open_streams
        self._running = _RunningStreams(legacy_context.now)
        self._resumed_stops: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)  # by session id, the oldest first
        self._get_streams: dict[str, _GetStream] = {}  # by session id, at most one each

    async def close(self) -> None:
        """Ends every stream in order."""
        self._running.close()

    def close_killed(self, is_killed: Callable[[str, str], bool]) -> None:
        """Ends the streams of callers whose owner and acting agent `is_killed` names."""
        self._running.close_killed(is_killed)

    async def listen(self, message: ClientMessage, response: HttpResponseWriter) -> bytes:
        """Serves `subscriptions/listen` until the stream ends, and returns its result. Raises BadEnvelope and TooManyStreams."""
        wanted = _parse_interest(message.params_object().get("notifications"))
        place = self._open_streams.acquire(message.caller.principal.owner_key)
        granted = self._feed.granted_interest(message.caller, message.server_path, wanted)
        tasks = await self._task_feed.find_followed(message, parse_task_ids(message))
        subscription = _Subscription(response, message.id)
        audience = Subscriber(message.caller, message.server_path, message.trace_context, subscription.notify, message.capabilities)
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        feed = self._feed.run(audience, lambda: self._interest_if_admitted(message, granted))
        following = run_in_background(self._task_feed.run(message, tasks, subscription.notify), "mcp_tasks_not_followed")

        async def begin_stream() -> None:
            await audience.confirmations.wait_until_lists_read()
            holds = await audience.confirmations.wait_until_known(granted.uris)
            held = frozenset(uri for uri, holds_now in holds.items() if holds_now)
            subscription.acknowledge(Interest(granted.tools, granted.prompts, granted.resources, held), tasks)

        try:
            await self._running.run_until_stopped(message.caller, response, place.hold_during(feed), stop, begin_stream)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        return encode({"resultType": "complete", "_meta": subscription.subscription_meta})

    async def serve_get_stream(self, message: ClientMessage, session: McpSession, response: HttpResponseWriter) -> None:
        """Serves a legacy client's GET stream. A second stream of the same session ends the first. Raises TooManyStreams."""
        place = self._open_streams.acquire(message.caller.principal.owner_key)
        stream = self._streams.open(session)

        def say(method: str, params: Mapping[str, Any]) -> None:
            response.send_event(stream.record_event(_encode_notification(method, params)))

        async def ask(method: str, params: Raw) -> Raw:
            return await ask_client(
                self._legacy_context, session, lambda body: response.send_event(stream.record_event(body)), method, params
            )

        publish = (
            partial(self._sessions.publish_confirmed, session, self._process)
            if self._legacy_context.mailbox.is_shared
            else _publish_nothing
        )
        holding = Confirmations(publish)
        audience = Subscriber(
            message.caller, message.server_path, message.trace_context, say, session.capabilities, ask, session.id, holding
        )
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if (previous := self._get_streams.get(session.id)) is not None:
            _stop(previous.stop)
        self._get_streams[session.id] = _GetStream(stop, holding)
        if self._legacy_context.mailbox.is_shared:
            session = await self._sessions.record_stream_opened(session, self._process)

        async def begin_stream() -> None:
            await holding.wait_until_lists_read()
            await holding.wait_until_known(session.uris)
            response.send_event(OPENING_COMMENT + stream.priming_event())

        feed = place.hold_during(self._feed.run(audience, lambda: self._subscribed_interest(message, session)))
        try:
            await self._running.run_until_stopped(message.caller, response, feed, stop, begin_stream)
        finally:
            current = self._get_streams.get(session.id)
            if current is not None and current.stop is stop:
                del self._get_streams[session.id]
                if self._legacy_context.mailbox.is_shared:
                    self._sessions.record_stream_ended(session, self._process)
            await response.end()

    async def is_subscription_confirmed(self, session: McpSession, uri: str, stream_process: str) -> bool:
        """Returns whether the session is subscribed to a resource. True without a stream, which subscribes when it is opened.

        `stream_process` is the process that may have the stream. Raises NotReachable if the server does not answer.
        """
        get_stream = self._get_streams.get(session.id)
        if get_stream is not None:
            get_stream.confirmations.interest_changed.set()
            return _is_confirmed(await get_stream.confirmations.wait_until_known((uri,)), uri)
        return await self._remote_streams.is_confirmed(session, uri, stream_process)

    async def wait_until_unsubscribed(self, session: McpSession, uri: str, stream_process: str) -> None:
        """Returns when the session is no longer subscribed to a resource, at the latest after CONFIRM_SECONDS."""
        get_stream = self._get_streams.get(session.id)
        if get_stream is not None:
            get_stream.confirmations.interest_changed.set()
            await get_stream.confirmations.wait_until_gone(uri)
        else:
            await self._remote_streams.wait_until_unsubscribed(session, uri, stream_process)

    async def wake_get_streams(self) -> None:
        """Applies changed subscriptions of sessions to the GET streams of this process. Called when any process has changed a session."""
        if self._get_streams:
            for session in await self._sessions.list_with_stream_at(self._process):
                get_stream = self._get_streams.get(session.id)
                if get_stream is not None:
                    get_stream.confirmations.interest_changed.set()

    async def serve_resumed_stream(
        self, message: ClientMessage, session: McpSession, last_event_id: str, response: HttpResponseWriter
    ) -> None:
        """Resumes a broken stream after `last_event_id`. Raises TooManyStreams."""
        place = self._open_streams.acquire(message.caller.principal.owner_key)
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stops = self._resumed_stops[session.id]
        stops.append(stop)
        for oldest in stops[:-RESUMED_MAX]:
            _stop(oldest)

        async def begin_stream() -> None:
            response.send_event(OPENING_COMMENT)

        try:
            await self._running.run_until_stopped(
                message.caller, response, place.hold_during(self._replay(message, session, last_event_id, response)), stop, begin_stream
            )
        finally:
            stops.remove(stop)
            if not stops:
                self._resumed_stops.pop(session.id, None)
            await response.end()

    async def _replay(self, message: ClientMessage, session: McpSession, last_event_id: str, response: HttpResponseWriter) -> None:
        """Sends the events that followed, as long as the session and the token are valid."""
        loop = asyncio.get_running_loop()
        checked = loop.time()
        async for framed in self._streams.replay(session, last_event_id):
            if loop.time() - checked > POLL_SECONDS:
                checked = loop.time()
                if await self._subscribed_interest(message, session) is None:
                    return
            if framed:
                await response.say_in_turn(framed)

    async def _interest_if_admitted(self, message: ClientMessage, granted: Interest) -> Interest | None:
        return granted if await self._is_still_admitted(message) else None

    async def _subscribed_interest(self, message: ClientMessage, session: McpSession) -> Interest | None:
        now = await self._sessions.read_current(session)
        return Interest(True, True, True, frozenset(now.uris)) if now is not None and await self._is_still_admitted(message) else None

    async def _is_still_admitted(self, message: ClientMessage) -> bool:
        """Returns whether the token of the stream is still valid for the same caller."""
        try:
            caller: Caller = await self._authentication.authenticate(message.scope, message.resource)
        except (TokenRefused, Killed):
            return False
        return caller.ruling_key == message.caller.ruling_key


class _GetStream(NamedTuple):
    """The GET stream of a session: its stop future and the confirmations of its subscriptions."""

    stop: asyncio.Future[None]
    confirmations: Confirmations


class _Subscription:
    """Sends the notifications of a `subscriptions/listen` stream: the acknowledgement first, then only for resources that it names."""

    def __init__(self, response: HttpResponseWriter, request_id: Any) -> None:
        self._response = response
        self._before_acknowledgement: list[tuple[str, Mapping[str, Any]]] | None = []  # notifications that wait for the acknowledgement
        self._uris: frozenset[str] = frozenset()
        self.subscription_meta = {SUBSCRIPTION_ID_KEY: request_id}

    def acknowledge(self, confirmed: Interest, tasks: Collection[str]) -> None:
        """Sends the acknowledgement, then the notifications that waited for it."""
        early, self._before_acknowledgement, self._uris = self._before_acknowledgement or (), None, confirmed.uris
        task_members = {"taskIds": list(tasks)} if tasks else {}
        self.notify(ACKNOWLEDGED_METHOD, {"notifications": {**_notifications_document(confirmed), **task_members}})
        for method, params in early:
            self.notify(method, params)

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        if self._before_acknowledgement is not None:
            self._before_acknowledgement.append((method, params))
        elif method != RESOURCE_UPDATED or params.get("uri") in self._uris:
            meta = params.get("_meta")
            self._response.send_event(
                _notification_event(method, {**params, "_meta": {**(meta if isinstance(meta, dict) else {}), **self.subscription_meta}})
            )


def _publish_nothing(confirmed: Mapping[str, bool]) -> None:
    """Publishes nothing, because there is no other process."""


def _is_confirmed(confirmed: Mapping[str, bool], uri: str) -> bool:
    """Returns whether the server has accepted the subscription. Raises NotReachable if it has not answered."""
    if uri not in confirmed:
        raise NotReachable
    return confirmed[uri]


def _stop(stop: asyncio.Future[None]) -> None:
    if not stop.done():
        stop.set_result(None)


def _parse_interest(notifications: Any) -> Interest:
    """Parses `params.notifications` of `subscriptions/listen`. Raises BadEnvelope."""
    if not isinstance(notifications, dict):
        raise BadEnvelope(INVALID_PARAMS, "params.notifications must be an object")
    tools, prompts, resources = (notifications.get(name, False) for name in LIST_CHANGED_FLAGS)
    uris = notifications.get("resourceSubscriptions", [])
    if not all(isinstance(flag, bool) for flag in (tools, prompts, resources)):
        raise BadEnvelope(INVALID_PARAMS, "params.notifications: each …ListChanged must be true or false")
    if not isinstance(uris, list) or len(uris) > URIS_MAX or not all(isinstance(uri, str) for uri in uris):
        raise BadEnvelope(INVALID_PARAMS, f"params.notifications.resourceSubscriptions must be a list of at most {URIS_MAX} strings")
    return Interest(tools, prompts, resources, frozenset(uris))


def _notifications_document(granted: Interest) -> dict[str, Any]:
    flags = (granted.tools, granted.prompts, granted.resources)
    shown: dict[str, Any] = {name: True for name, flag in zip(LIST_CHANGED_FLAGS, flags, strict=True) if flag}
    return shown | ({"resourceSubscriptions": sorted(granted.uris)} if granted.uris else {})


def _encode_notification(method: str, params: Mapping[str, Any]) -> bytes:
    return encode({"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})})


def _notification_event(method: str, params: Mapping[str, Any]) -> bytes:
    return frame_event(_encode_notification(method, params))
