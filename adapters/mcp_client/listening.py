"""Listens to servers outside of requests: by `subscriptions/listen` in the modern era, by a session's stream in the older one."""

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from adapters.contract import Call, Failure, Unreachable, UpstreamFault
from adapters.mcp_client.exchange.http import CUT_TEXT, LATE_TEXT, RETRY_MAX_MS, Exchange, McpHttp, client_answer, is_stream, read_whole
from adapters.mcp_client.exchange.server_messages import ServerMessages
from adapters.mcp_client.legacy.get_streams import OPEN_SECONDS, PAUSE_SECONDS, GetStreams, read_messages
from adapters.mcp_client.legacy.requests import SUBSCRIBE, UNSUBSCRIBE, SessionReplyChannel, session_key
from adapters.mcp_client.legacy.sessions import NO_CAPABILITIES, URIS_MAX, ServerSession, ServerSessions, request_in_session
from adapters.mcp_client.wire.eras import decode_checked, json_string, modern_params
from adapters.mcp_client.wire.messages import (
    META_PREFIX,
    Envelope,
    McpRequest,
    Members,
    check_answer,
    encode,
    envelope_of,
    members_of,
    modern_headers,
)
from adapters.mcp_client.wire.peer import ListenFilter, McpListener
from adapters.upstream.egress import StreamedResponse

LISTEN_METHOD: Final = "subscriptions/listen"
ACKNOWLEDGED_METHOD: Final = "notifications/subscriptions/acknowledged"
SUBSCRIPTION_KEY: Final = META_PREFIX + "subscriptionId"
SESSIONS_MAX: Final = 10_000
_FILTER_MEMBERS: Final = {"tools": "toolsListChanged", "prompts": "promptsListChanged", "resources": "resourcesListChanged"}


class _NotificationFilter(msgspec.Struct, frozen=True, rename="camel"):
    tools_list_changed: bool | None = None
    prompts_list_changed: bool | None = None
    resources_list_changed: bool | None = None
    resource_subscriptions: list[str] | None = None
    task_ids: list[str] | None = None


class _Acknowledged(msgspec.Struct, frozen=True):
    notifications: _NotificationFilter = _NotificationFilter()


LISTEN_TO_ALL: Final = ListenFilter(tools=True, prompts=True, resources=True)
_LISTEN_REQUEST: Final = McpRequest("", "", b"", b"{}", is_modern=True, method=LISTEN_METHOD)
_decode_acknowledged: Final = msgspec.json.Decoder(_Acknowledged).decode


class _SubscribedUris:
    def __init__(self) -> None:
        self.uris: set[str] = set()
        self.changed = asyncio.Event()


class LegacySubscriptions:
    """The subscriptions of clients of the legacy era at modern servers, by server, person and session."""

    def __init__(self) -> None:
        self._uris_by_session: dict[tuple[str, str, str], _SubscribedUris] = {}

    def uris_of(self, call: Call, client_session: str) -> _SubscribedUris:
        key = (f"{call.target.tenant}|{call.target.name}", call.grant.delegation.principal.owner_key, client_session)
        if key not in self._uris_by_session and len(self._uris_by_session) >= SESSIONS_MAX:
            del self._uris_by_session[next(iter(self._uris_by_session))]
        return self._uris_by_session.setdefault(key, _SubscribedUris())

    def record_request(self, call: Call, request: McpRequest) -> None:
        """Records a resources/subscribe or resources/unsubscribe."""
        wanted = self.uris_of(call, request.client_session)
        if request.method == UNSUBSCRIBE:
            wanted.uris.discard(request.name)
        elif len(wanted.uris) < URIS_MAX:
            wanted.uris.add(request.name)
        wanted.changed.set()

    def remove_session(self, owner: str, client_session: str) -> None:
        for key in [key for key in self._uris_by_session if key[1:] == (owner, client_session)]:
            del self._uris_by_session[key]


class ModernListening:
    def __init__(self, http: McpHttp, clock: Callable[[], float], legacy_subscriptions: LegacySubscriptions) -> None:
        self._http = http
        self._clock = clock
        self._legacy_subscriptions = legacy_subscriptions

    async def listen(self, call: Call, wanted: ListenFilter, listener: McpListener, client_session: str) -> None:
        """Listens until the server ends it. Opens a broken stream again, and notifies of all changes that may have been missed."""
        more = self._legacy_subscriptions.uris_of(call, client_session) if client_session else _SubscribedUris()
        stream = ModernStream(self._http, call.target.url, call.headers, listener)
        pause, seconds = PAUSE_SECONDS, call.deadline - self._clock()
        while True:
            more.changed.clear()
            began = self._clock()
            try:
                all_wanted = dataclasses.replace(wanted, uris=wanted.uris | more.uris)
                if await _run_until(more.changed, stream.run(all_wanted, seconds)):
                    return
                continue  # with the URIs that the client subscribed to since
            except UpstreamFault:
                if not stream.was_opened:
                    raise
            stream.may_have_missed, seconds = True, OPEN_SECONDS
            await asyncio.sleep(pause)
            pause = PAUSE_SECONDS if self._clock() - began > RETRY_MAX_MS / 1000 else min(2 * pause, RETRY_MAX_MS / 1000)


class ModernStream:
    """One listener's stream, which may be opened several times."""

    def __init__(self, http: McpHttp, url: str, credentials: Mapping[str, str], listener: McpListener) -> None:
        self._http = http
        self._url = url
        self._credentials = credentials
        self._listener = listener
        self._next_number = itertools.count(1).__next__
        self.was_opened = False
        self.may_have_missed = False  # set while the stream is broken

    async def run(self, wanted: ListenFilter, seconds: float) -> None:
        """Runs until the server ends the stream regularly. `seconds`: the timeout of the acknowledgement.

        Raises UpstreamFault, McpRefused and WrongEra.
        """
        number, url = f"listen-{self._next_number()}", self._url
        body = envelope_of(number, LISTEN_METHOD, modern_params({"notifications": notification_filter(wanted)}))
        headers = {**self._credentials, **modern_headers(LISTEN_METHOD)}
        try:
            async with asyncio.timeout(max(seconds, 0.001)) as opening, self._http.open_stream("POST", url, headers, body) as answer:
                exchange = None if is_stream(answer.headers) else await read_whole(answer, number)
                if exchange is not None:
                    client_answer(_LISTEN_REQUEST, exchange, True)
                    return
                await self._read_events(answer, number, wanted, opening)
        except TimeoutError as error:
            raise Unreachable(LATE_TEXT, "no acknowledgement", Failure.LATE) from error

    async def _read_events(self, answer: StreamedResponse, number: str, wanted: ListenFilter, opening: asyncio.Timeout) -> None:
        granted: ListenFilter | None = None
        async for message in read_messages(answer):
            if message.method is UNSET:
                client_answer(_LISTEN_REQUEST, Exchange(200, {}, check_answer(message, number)), True)
                return
            params = members_of(message.params if message.params is not UNSET else Raw(b"{}"))
            if granted is not None:
                await forward_if_granted(self._listener, granted, str(message.method), params)
            elif message.method != ACKNOWLEDGED_METHOD:
                raise UpstreamFault("The server's message is not valid", "a message arrived before the acknowledgement")
            else:
                granted = read_acknowledged(params, wanted)
                opening.reschedule(None)
                await self._acknowledge(granted)
        raise Unreachable(CUT_TEXT, "the stream ended", Failure.CUT)

    async def _acknowledge(self, granted: ListenFilter) -> None:
        if not self.was_opened:
            self.was_opened = True
            await self._listener.on_acknowledged(granted)
        elif self.may_have_missed:
            self.may_have_missed = False
            await _notify_possible_changes(self._listener, granted)


class LegacyListening:
    def __init__(self, http: McpHttp, sessions: ServerSessions, streams: GetStreams, clock: Callable[[], float]) -> None:
        self._http = http
        self._sessions = sessions
        self._streams = streams
        self._clock = clock

    async def listen(self, call: Call, wanted: ListenFilter, listener: McpListener, client_session: str) -> None:
        """Listens until it is canceled: sessions have no end that a server announces."""
        session = self._sessions.session_for(session_key(call, listener, client_session))
        session.calls_in_flight += 1
        sink: _ListenerSink | None = None
        try:
            await self._sessions.ensure_open(session, call.headers, call.deadline)
            self._streams.open(session, call.headers)
            await self._streams.wait_until_open(session)  # notifications before it is open are lost
            sink = _ListenerSink(listener, wanted, SessionReplyChannel(self._http, session, call.headers), client_session)
            session.listeners.append(sink)
            await self._subscribe_to_all(session, call, wanted, sink)
            await listener.on_acknowledged(sink.granted)
            await asyncio.Event().wait()
        finally:
            if sink is not None:
                session.listeners.remove(sink)
                self._unsubscribe(session, call, sink.granted.uris)
            if not session.listeners and session.key.capabilities == NO_CAPABILITIES:
                self._streams.close(session)
            session.calls_in_flight -= 1
            session.last_used = self._clock()

    async def _subscribe_to_all(self, session: ServerSession, call: Call, wanted: ListenFilter, sink: "_ListenerSink") -> None:
        """Grants the sink what the server announces; subscribes to each URI once for all listeners."""
        offered = session.server_capabilities
        sink.granted = ListenFilter(
            tools=wanted.tools and announces_changes(offered.get("tools")),
            prompts=wanted.prompts and announces_changes(offered.get("prompts")),
            resources=wanted.resources and announces_changes(offered.get("resources")),
        )
        for uri in wanted.uris:
            if session.uris[uri] or await self._subscribe(session, call, uri):
                session.uris[uri] += 1
                sink.granted = dataclasses.replace(sink.granted, uris=sink.granted.uris | {uri})

    async def _subscribe(self, session: ServerSession, call: Call, uri: str) -> bool:
        if len(session.uris) >= URIS_MAX:
            return False
        exchange = await request_in_session(
            self._http, session, call.headers, SUBSCRIBE, {"uri": uri}, seconds=call.deadline - self._clock()
        )
        return exchange.answer is not None and exchange.answer.result is not UNSET

    def _unsubscribe(self, session: ServerSession, call: Call, uris: frozenset[str]) -> None:
        """Unsubscribes from URIs without any remaining listener, without waiting."""
        for uri in uris:
            session.uris[uri] -= 1
            if session.uris[uri] <= 0:
                del session.uris[uri]
                self._streams.send_in_background(session, call.headers, UNSUBSCRIBE, {"uri": uri})


class _ListenerSink:
    """A listener in a session. It gets everything in a client's own session, and only what it was granted in a shared one."""

    def __init__(self, listener: McpListener, granted: ListenFilter, reply_channel: SessionReplyChannel, client_session: str) -> None:
        self._listener = listener
        self._client_session = client_session
        self.granted = granted
        request = McpRequest(0, "", b"", b"{}", is_modern=False, method="", peer=listener, client_session=client_session)
        self._server_messages = ServerMessages(request, listener, reply_channel=reply_channel)

    async def forward_change(self, method: str, params: Raw) -> None:
        await forward_if_granted(self._listener, LISTEN_TO_ALL if self._client_session else self.granted, method, members_of(params))

    async def receive(self, message: Envelope) -> None:
        await self._server_messages.receive(message)


def notification_filter(wanted: ListenFilter) -> dict[str, Any]:
    members: dict[str, Any] = {member: True for name, member in _FILTER_MEMBERS.items() if getattr(wanted, name)}
    if wanted.uris:
        members["resourceSubscriptions"] = sorted(wanted.uris)
    if wanted.tasks:
        members["taskIds"] = sorted(wanted.tasks)
    return members


def read_acknowledged(params: Members, wanted: ListenFilter) -> ListenFilter:
    """The acknowledged part of what was wanted."""
    acknowledged: _NotificationFilter = decode_checked(encode(params), _decode_acknowledged).notifications
    return ListenFilter(
        tools=wanted.tools and acknowledged.tools_list_changed is True,
        prompts=wanted.prompts and acknowledged.prompts_list_changed is True,
        resources=wanted.resources and acknowledged.resources_list_changed is True,
        uris=wanted.uris & frozenset(acknowledged.resource_subscriptions or ()),
        tasks=wanted.tasks & frozenset(acknowledged.task_ids or ()),
    )


def announces_changes(offered: Any) -> bool:
    return isinstance(offered, Mapping) and offered.get("listChanged") is True


async def forward_if_granted(listener: McpListener, granted: ListenFilter, method: str, params: Members) -> None:
    """Passes on a granted notification, without the server's subscription id."""
    if is_granted(granted, method, params):
        meta = {name: value for name, value in members_of(params.get("_meta", Raw(b"{}"))).items() if name != SUBSCRIPTION_KEY}
        rest: dict[str, Any] = {name: value for name, value in params.items() if name != "_meta"}
        await listener.notify(method, Raw(encode(rest | ({"_meta": meta} if meta else {}))))


def is_granted(granted: ListenFilter, method: str, params: Members) -> bool:
    kind = method.removeprefix("notifications/").removesuffix("/list_changed")
    if method == f"notifications/{kind}/list_changed" and kind in _FILTER_MEMBERS:
        return bool(getattr(granted, kind))
    if method == "notifications/resources/updated":
        uri = json_string(params.get("uri", Raw(b'""')))
        return granted is LISTEN_TO_ALL or any(uri == one or uri.startswith(one.rstrip("/") + "/") for one in granted.uris)
    return method == "notifications/tasks" and json_string(params.get("taskId", Raw(b'""'))) in granted.tasks


async def _notify_possible_changes(listener: McpListener, granted: ListenFilter) -> None:
    """Notifies of all changes that may have been missed."""
    for name in _FILTER_MEMBERS:
        if getattr(granted, name):
            await listener.notify(f"notifications/{name}/list_changed", Raw(b"{}"))
    for uri in sorted(granted.uris):
        await listener.notify("notifications/resources/updated", Raw(encode({"uri": uri})))


async def _run_until(changed: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Runs `work` until it ends (returns True) or `changed` is set (returns False)."""
    task, waiting = asyncio.create_task(work), asyncio.create_task(changed.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        return False
    finally:
        for one in (task, waiting):
            one.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)
