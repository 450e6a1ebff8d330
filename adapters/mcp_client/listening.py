"""Listening to servers outside of requests: `subscriptions/listen` in the modern era, a session's own stream in the older one."""

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from adapters.contract import Call, Failure, Unreachable, UpstreamFault
from adapters.mcp_client.exchange.http import CUT, LATE, RETRY_MAX_MS, Exchange, McpHttp, is_stream, whole
from adapters.mcp_client.exchange.rounds import answered
from adapters.mcp_client.exchange.server_messages import Hearing
from adapters.mcp_client.legacy.get_streams import OPEN_SECONDS, PAUSE_SECONDS, GetStreams, messages
from adapters.mcp_client.legacy.requests import SUBSCRIBE, UNSUBSCRIBE, WayBack, session_key
from adapters.mcp_client.legacy.sessions import URIS_MAX, Session, Sessions, ask
from adapters.mcp_client.wire.eras import checked, modern_params, word
from adapters.mcp_client.wire.messages import (
    META,
    Envelope,
    McpRequest,
    Members,
    check_answer,
    encode,
    envelope_of,
    members_of,
    modern_headers,
)
from adapters.mcp_client.wire.peer import Listener, Listening
from adapters.upstream.egress import Streamed

METHOD: Final = "subscriptions/listen"
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
SUBSCRIPTION: Final = META + "subscriptionId"
SESSIONS_KEPT: Final = 10_000
_LISTS: Final = {"tools": "toolsListChanged", "prompts": "promptsListChanged", "resources": "resourcesListChanged"}


class _Filter(msgspec.Struct, frozen=True, rename="camel"):
    tools_list_changed: bool | None = None
    prompts_list_changed: bool | None = None
    resources_list_changed: bool | None = None
    resource_subscriptions: list[str] | None = None
    task_ids: list[str] | None = None


class _Acknowledged(msgspec.Struct, frozen=True):
    notifications: _Filter = _Filter()


ALL: Final = Listening(tools=True, prompts=True, resources=True)
_ASKED: Final = McpRequest("", "", b"", b"{}", modern=True, method=METHOD)
_acknowledged: Final = msgspec.json.Decoder(_Acknowledged).decode


class _Wanted:
    def __init__(self) -> None:
        self.uris: set[str] = set()
        self.changed = asyncio.Event()


class Subscribed:
    """What clients of the `initialize` era subscribed to at modern servers, by server, person and session."""

    def __init__(self) -> None:
        self._wanted: dict[tuple[str, str, str], _Wanted] = {}

    def of(self, call: Call, front: str) -> _Wanted:
        key = (f"{call.target.tenant}|{call.target.name}", call.grant.delegation.principal.owner, front)
        if key not in self._wanted and len(self._wanted) >= SESSIONS_KEPT:
            del self._wanted[next(iter(self._wanted))]
        return self._wanted.setdefault(key, _Wanted())

    def change(self, call: Call, request: McpRequest) -> None:
        """Takes resources/subscribe or resources/unsubscribe."""
        wanted = self.of(call, request.session)
        if request.method == UNSUBSCRIBE:
            wanted.uris.discard(request.name)
        elif len(wanted.uris) < URIS_MAX:
            wanted.uris.add(request.name)
        wanted.changed.set()

    def leave(self, owner: str, front: str) -> None:
        for key in [key for key in self._wanted if key[1:] == (owner, front)]:
            del self._wanted[key]


class ModernListening:
    def __init__(self, http: McpHttp, clock: Callable[[], float], subscribed: Subscribed) -> None:
        self._http = http
        self._clock = clock
        self._subscribed = subscribed

    async def listen(self, call: Call, wanted: Listening, listener: Listener, front: str) -> None:
        """Until the server ends it. A broken stream is opened again, and what may have been missed is told as changed."""
        more = self._subscribed.of(call, front) if front else _Wanted()
        stream = ModernStream(self._http, call.target.url, call.headers, listener)
        pause, seconds = PAUSE_SECONDS, call.deadline - self._clock()
        while True:
            more.changed.clear()
            began = self._clock()
            try:
                whole = dataclasses.replace(wanted, uris=wanted.uris | more.uris)
                if await _unless(more.changed, stream.follow(whole, seconds)):
                    return
                continue  # with what the client subscribed to meanwhile
            except UpstreamFault:
                if not stream.opened:
                    raise
            stream.broken, seconds = True, OPEN_SECONDS
            await asyncio.sleep(pause)
            pause = PAUSE_SECONDS if self._clock() - began > RETRY_MAX_MS / 1000 else min(2 * pause, RETRY_MAX_MS / 1000)


class ModernStream:
    """One listener's stream, perhaps opened several times."""

    def __init__(self, http: McpHttp, url: str, credentials: Mapping[str, str], listener: Listener) -> None:
        self._http = http
        self._url = url
        self._credentials = credentials
        self._listener = listener
        self._number = itertools.count(1).__next__
        self.opened = False
        self.broken = False  # since it was open

    async def follow(self, wanted: Listening, seconds: float) -> None:
        """Returns when the server ended it in order. Raises UpstreamFault, McpRefused and WrongEra. `seconds`: to the acknowledgement."""
        number, url = f"listen-{self._number()}", self._url
        body = envelope_of(number, METHOD, modern_params({"notifications": filter_of(wanted)}))
        headers = {**self._credentials, **modern_headers(METHOD)}
        try:
            async with asyncio.timeout(max(seconds, 0.001)) as opening, self._http.lasting("POST", url, headers, body) as answer:
                exchange = None if is_stream(answer.headers) else await whole(answer, number)
                if exchange is not None:
                    answered(_ASKED, exchange, True)
                    return
                await self._events(answer, number, wanted, opening)
        except TimeoutError as error:
            raise Unreachable(LATE, "no acknowledgement", Failure.LATE) from error

    async def _events(self, answer: Streamed, number: str, wanted: Listening, opening: asyncio.Timeout) -> None:
        granted: Listening | None = None
        async for message in messages(answer):
            if message.method is UNSET:
                answered(_ASKED, Exchange(200, {}, check_answer(message, number)), True)
                return
            params = members_of(message.params if message.params is not UNSET else Raw(b"{}"))
            if granted is not None:
                await tell(self._listener, granted, str(message.method), params)
            elif message.method != ACKNOWLEDGED:
                raise UpstreamFault("The server's message is not valid", "something came before the acknowledgement")
            else:
                granted = acknowledged(params, wanted)
                opening.reschedule(None)
                await self._acknowledge(granted)
        raise Unreachable(CUT, "the stream ended", Failure.CUT)

    async def _acknowledge(self, granted: Listening) -> None:
        if not self.opened:
            self.opened = True
            await self._listener.acknowledged(granted)
        elif self.broken:
            self.broken = False
            await _tell_all(self._listener, granted)


class LegacyListening:
    def __init__(self, http: McpHttp, sessions: Sessions, streams: GetStreams, clock: Callable[[], float]) -> None:
        self._http = http
        self._sessions = sessions
        self._streams = streams
        self._clock = clock

    async def listen(self, call: Call, wanted: Listening, listener: Listener, front: str) -> None:
        """Until it is cancelled: a session has no end that its server could tell of."""
        session = self._sessions.of(session_key(call, listener, front))
        session.calls += 1
        ear: _Ear | None = None
        try:
            await self._sessions.ready(session, call.headers, call.deadline)
            self._streams.open(session, call.headers)
            await self._streams.opened(session)  # what is said before it is open is lost
            ear = _Ear(listener, wanted, WayBack(self._http, session, call.headers), front)
            session.listeners.append(ear)
            await self._subscribe_to_all(session, call, wanted, ear)
            await listener.acknowledged(ear.granted)
            await asyncio.Event().wait()
        finally:
            if ear is not None:
                session.listeners.remove(ear)
                self._unsubscribe(session, call, ear.granted.uris)
            if not session.listeners and session.key.capabilities == "{}":
                self._streams.close(session)
            session.calls -= 1
            session.used = self._clock()

    async def _subscribe_to_all(self, session: Session, call: Call, wanted: Listening, ear: "_Ear") -> None:
        """Grants the ear what the server says that it tells of; each URI is subscribed to, once for all who want it."""
        offered = session.offered
        ear.granted = Listening(
            tools=wanted.tools and tells(offered.get("tools")),
            prompts=wanted.prompts and tells(offered.get("prompts")),
            resources=wanted.resources and tells(offered.get("resources")),
        )
        for uri in wanted.uris:
            if session.uris[uri] or await self._subscribe(session, call, uri):
                session.uris[uri] += 1
                ear.granted = dataclasses.replace(ear.granted, uris=ear.granted.uris | {uri})

    async def _subscribe(self, session: Session, call: Call, uri: str) -> bool:
        if len(session.uris) >= URIS_MAX:
            return False
        exchange = await ask(self._http, session, call.headers, (SUBSCRIBE, {"uri": uri}), call.deadline - self._clock())
        return exchange.answer is not None and exchange.answer.result is not UNSET

    def _unsubscribe(self, session: Session, call: Call, uris: frozenset[str]) -> None:
        """The server is told of those that nobody wants any more, as far as it listens."""
        for uri in uris:
            session.uris[uri] -= 1
            if session.uris[uri] <= 0:
                del session.uris[uri]
                self._streams.tell(session, call.headers, (UNSUBSCRIBE, {"uri": uri}))


class _Ear:
    """A listener in a session. A front's own session hears all of it, a shared one what the listener was granted."""

    def __init__(self, listener: Listener, granted: Listening, way_back: WayBack, front: str) -> None:
        self._listener = listener
        self._front = front
        self.granted = granted
        asked = McpRequest(0, "", b"", b"{}", modern=False, method="", peer=listener, session=front)
        self._hearing = Hearing(asked, listener, outlet=way_back)

    async def changed(self, method: str, params: Raw) -> None:
        await tell(self._listener, ALL if self._front else self.granted, method, members_of(params))

    async def heard(self, message: Envelope) -> None:
        await self._hearing.heard(message)


def filter_of(wanted: Listening) -> dict[str, Any]:
    asked: dict[str, Any] = {member: True for name, member in _LISTS.items() if getattr(wanted, name)}
    if wanted.uris:
        asked["resourceSubscriptions"] = sorted(wanted.uris)
    if wanted.tasks:
        asked["taskIds"] = sorted(wanted.tasks)
    return asked


def acknowledged(params: Members, wanted: Listening) -> Listening:
    """What was acknowledged, of what was wanted."""
    said: _Filter = checked(encode(params), _acknowledged).notifications
    return Listening(
        tools=wanted.tools and said.tools_list_changed is True,
        prompts=wanted.prompts and said.prompts_list_changed is True,
        resources=wanted.resources and said.resources_list_changed is True,
        uris=wanted.uris & frozenset(said.resource_subscriptions or ()),
        tasks=wanted.tasks & frozenset(said.task_ids or ()),
    )


def tells(offered: Any) -> bool:
    return isinstance(offered, Mapping) and offered.get("listChanged") is True


async def tell(listener: Listener, granted: Listening, method: str, params: Members) -> None:
    """Passes on what was granted, without the server's name for the subscription."""
    if admits(granted, method, params):
        meta = {name: value for name, value in members_of(params.get("_meta", Raw(b"{}"))).items() if name != SUBSCRIPTION}
        rest: dict[str, Any] = {name: value for name, value in params.items() if name != "_meta"}
        await listener.notify(method, Raw(encode(rest | ({"_meta": meta} if meta else {}))))


def admits(granted: Listening, method: str, params: Members) -> bool:
    kind = method.removeprefix("notifications/").removesuffix("/list_changed")
    if method == f"notifications/{kind}/list_changed" and kind in _LISTS:
        return bool(getattr(granted, kind))
    if method == "notifications/resources/updated":
        uri = word(params.get("uri", Raw(b'""')))
        return granted is ALL or any(uri == one or uri.startswith(one.rstrip("/") + "/") for one in granted.uris)
    return method == "notifications/tasks" and word(params.get("taskId", Raw(b'""'))) in granted.tasks


async def _tell_all(listener: Listener, granted: Listening) -> None:
    """After a gap: whatever may have been missed."""
    for name in _LISTS:
        if getattr(granted, name):
            await listener.notify(f"notifications/{name}/list_changed", Raw(b"{}"))
    for uri in sorted(granted.uris):
        await listener.notify("notifications/resources/updated", Raw(encode({"uri": uri})))


async def _unless(changed: asyncio.Event, following: Coroutine[Any, Any, None]) -> bool:
    """Follows until `changed`; True when what was followed came to its own end."""
    task, waiting = asyncio.create_task(following), asyncio.create_task(changed.wait())
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
