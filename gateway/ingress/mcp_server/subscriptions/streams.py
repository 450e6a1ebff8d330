"""Streams that stay open: `subscriptions/listen` of modern clients, GET of older ones."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from adapters.mcp_client.wire.messages import INVALID_PARAMS, META
from gateway.background import let_go
from gateway.calls.limits.open_streams import Places
from gateway.ingress.http.authentication import Admission
from gateway.ingress.mcp_server.legacy.exchange import Line
from gateway.ingress.mcp_server.legacy.exchange import asked as ask_client
from gateway.ingress.mcp_server.protocol.message import Asked
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.response import Outlet, event
from gateway.ingress.mcp_server.protocol.sessions import Session, Sessions
from gateway.ingress.mcp_server.subscriptions.confirmations import HOLD_SECONDS, Holding
from gateway.ingress.mcp_server.subscriptions.notifications import LOOK_SECONDS, UPDATED, Audience, Feed, Interest
from gateway.ingress.mcp_server.tasks.feed import TaskFeed, task_ids
from policies.callers import Caller
from policies.delegation.kills import Killed
from policies.tokens.verifier import TokenRefused
from registry.health.reachability import NotReachable

URIS_MAX = 1000
RESUMED_MAX = 8  # streams of one session that are gone on with at a time; the oldest makes room
FLAGS = ("toolsListChanged", "promptsListChanged", "resourcesListChanged")
OPENED = b": open\n\n"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
PUBLISHED_LOOK_SECONDS = 0.05  # between two looks whether a subscription holds at another process
ID_KEY = META + "subscriptionId"
encode = msgspec.json.Encoder().encode
Work = Coroutine[Any, Any, None]
Opened = Callable[[], Awaitable[None]]


class Here(NamedTuple):
    """This process, and how it learns whether another still lives."""

    process: str
    lives: Callable[[str], Awaitable[bool]]


class _Elsewhere:
    """Streams that other processes have, and what they publish of them."""

    def __init__(self, sessions: Sessions, here: Here) -> None:
        self._sessions = sessions
        self._here = here

    async def holds(self, session: Session, uri: str, streamer: str) -> bool:
        """Whether the stream at another process, if there is one, tells of a resource. Raises NotReachable."""
        async for held in self._published(session, streamer):
            if held is None:
                return True
            if uri in held:
                return held[uri]
        raise NotReachable

    async def released(self, session: Session, uri: str, streamer: str) -> None:
        """Returns when the stream does not tell of a resource any more, or after a while."""
        async for held in self._published(session, streamer):
            if held is None or not held.get(uri):
                return

    async def _published(self, session: Session, streamer: str) -> AsyncIterator[Mapping[str, bool] | None]:
        """What the process says, again and again for HOLD_SECONDS; None where it has no stream, or none any more."""
        now = asyncio.get_running_loop().time
        until = now() + HOLD_SECONDS
        other = bool(streamer) and streamer != self._here.process
        while now() < until:
            yield await self._sessions.held(session, streamer) if other and await self._here.lives(streamer) else None
            await asyncio.sleep(PUBLISHED_LOOK_SECONDS)


class Listeners:
    """Serves them. When the gateway closes, or the token that opened one is not good any more, they end in order."""

    def __init__(
        self, admission: Admission, feeds: tuple[Feed, TaskFeed], sessions: Sessions, line: Line, places: Places, *, here: Here
    ) -> None:
        self._admission = admission
        self._process = here.process
        self._feed, self._task_feed = feeds
        self._sessions = sessions
        self._elsewhere = _Elsewhere(sessions, here)
        self._streams = line.streams
        self._line = line
        self._now = line.now
        self._places = places
        self._closing = False
        self._open: dict[asyncio.Future[None], Caller] = {}
        self._resumed: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)  # of each session, the oldest first
        self._general: dict[str, _General] = {}  # of each session the GET stream, one at a time

    async def close(self) -> None:
        self._closing = True
        for stop in self._open:
            _settle(stop)

    def expel(self, stopped: Callable[[str, str], bool]) -> None:
        """Ends the streams of whoever is `stopped`, by owner and acting agent."""
        for stop, caller in self._open.items():
            if stopped(caller.principal.owner, caller.delegation.actor):
                _settle(stop)

    async def listen(self, asked: Asked, outlet: Outlet) -> bytes:
        """Until the stream ends; then the result that says so. Raises BadEnvelope and TooManyStreams."""
        wanted = _filter(asked.object().get("notifications"))
        place = self._places.take(asked.caller.principal.owner)
        granted = self._feed.granted(asked.caller, asked.server, wanted)
        tasks = await self._task_feed.granted(asked, task_ids(asked))
        telling = _Subscription(outlet, asked.id)
        audience = Audience(asked.caller, asked.server, asked.trail, telling.say, asked.capabilities)
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        feed = self._feed.run(audience, lambda: self._still(asked, granted))
        following = let_go(self._task_feed.run(asked, tasks, telling.say), "mcp_tasks_not_followed")

        async def opened() -> None:
            holds = await audience.holding.known(granted.uris)
            held = frozenset(uri for uri, holds_now in holds.items() if holds_now)
            telling.acknowledge(Interest(granted.tools, granted.prompts, granted.resources, held), tasks)

        try:
            await self._run(asked.caller, outlet, place.during(feed), stop, opened)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        return encode({"resultType": "complete", "_meta": telling.marked})

    async def general(self, asked: Asked, session: Session, outlet: Outlet) -> None:
        """An older client's GET stream. A second one of the same session takes the place of the first. Raises TooManyStreams."""
        place = self._places.take(asked.caller.principal.owner)
        stream = self._streams.open(session)

        def say(method: str, params: Mapping[str, Any]) -> None:
            outlet.say(stream.event(_message(method, params)))

        async def ask(method: str, params: Raw) -> Raw:
            return await ask_client(self._line, session, lambda body: outlet.say(stream.event(body)), (method, params))

        publish = partial(self._sessions.publish, session, self._process) if self._line.mailbox.shared else _unpublished
        holding = Holding(publish)
        audience = Audience(asked.caller, asked.server, asked.trail, say, session.capabilities, ask, session.id, holding)
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if (before := self._general.get(session.id)) is not None:
            _settle(before.stop)
        self._general[session.id] = _General(stop, holding)
        if self._line.mailbox.shared:
            session = await self._sessions.stream_opened(session, self._process)

        async def opened() -> None:
            await holding.known(session.uris)
            outlet.say(OPENED + stream.first())

        feed = place.during(self._feed.run(audience, lambda: self._subscribed(asked, session)))
        try:
            await self._run(asked.caller, outlet, feed, stop, opened)
        finally:
            mine = self._general.get(session.id)
            if mine is not None and mine.stop is stop:
                del self._general[session.id]
                if self._line.mailbox.shared:
                    self._sessions.stream_ended(session, self._process)
            await outlet.end()

    async def holds(self, session: Session, uri: str, streamer: str) -> bool:
        """Whether the session hears of a resource from now on. True without a stream, which hears of it once it is open.

        `streamer`: the process that has the stream, where others may. Raises NotReachable when the server does not answer.
        """
        here = self._general.get(session.id)
        if here is not None:
            here.holding.asked.set()
            return _answer(await here.holding.known((uri,)), uri)
        return await self._elsewhere.holds(session, uri, streamer)

    async def released(self, session: Session, uri: str, streamer: str) -> None:
        """Returns when the session does not hear of a resource any more, or after a while."""
        here = self._general.get(session.id)
        if here is not None:
            here.holding.asked.set()
            await here.holding.gone(uri)
        else:
            await self._elsewhere.released(session, uri, streamer)

    async def look(self) -> None:
        """A session subscribed to something else, at whichever process: streams that this one has follow."""
        if self._general:
            for session in await self._sessions.streamed(self._process):
                here = self._general.get(session.id)
                if here is not None:
                    here.holding.asked.set()

    async def resumed(self, asked: Asked, session: Session, last_event_id: str, outlet: Outlet) -> None:
        """Goes on with a stream that broke. Raises TooManyStreams."""
        place = self._places.take(asked.caller.principal.owner)
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine = self._resumed[session.id]
        mine.append(stop)
        for before in mine[:-RESUMED_MAX]:
            _settle(before)

        async def opened() -> None:
            outlet.say(OPENED)

        try:
            await self._run(asked.caller, outlet, place.during(self._again(asked, session, last_event_id, outlet)), stop, opened)
        finally:
            mine.remove(stop)
            if not mine:
                self._resumed.pop(session.id, None)
            await outlet.end()

    async def _again(self, asked: Asked, session: Session, last_event_id: str, outlet: Outlet) -> None:
        """Says what followed, as long as the session and the token are good."""
        loop = asyncio.get_running_loop()
        checked = loop.time()
        async for framed in self._streams.resumed(session, last_event_id):
            if loop.time() - checked > LOOK_SECONDS:
                checked = loop.time()
                if await self._subscribed(asked, session) is None:
                    return
            if framed:
                await outlet.say_in_turn(framed)

    async def _run(
        self,
        caller: Caller,
        outlet: Outlet,
        work: Coroutine[Any, Any, None],
        stop: asyncio.Future[None],
        opened: Callable[[], Awaitable[None]],
    ) -> None:
        """Until the client leaves, `stop` is settled, the token's time is over or nothing is wanted any more.

        `opened` begins the stream, once what it is to tell of holds.
        """
        telling = let_go(work, "mcp_stream_broke")
        self._open[stop] = caller
        if self._closing:
            _settle(stop)
        left = max(0.0, caller.expires - self._now())
        opening, leaving = asyncio.ensure_future(opened()), asyncio.ensure_future(outlet.left())
        try:
            await asyncio.wait([opening, leaving, telling, stop], timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
                await asyncio.wait([telling, outlet.stream, stop], timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.pop(stop, None)
            for task in (telling, opening, leaving):
                task.cancel()
            await asyncio.gather(telling, opening, leaving, return_exceptions=True)

    async def _still(self, asked: Asked, granted: Interest) -> Interest | None:
        return granted if await self._admitted(asked) else None

    async def _subscribed(self, asked: Asked, session: Session) -> Interest | None:
        now = await self._sessions.current(session)
        return Interest(True, True, True, frozenset(now.uris)) if now is not None and await self._admitted(asked) else None

    async def _admitted(self, asked: Asked) -> bool:
        """Whether the token that opened the stream would still open it."""
        try:
            caller: Caller = await self._admission.admit(asked.scope, asked.resource)
        except (TokenRefused, Killed):
            return False
        return caller.key == asked.caller.key


class _General(NamedTuple):
    """A session's own stream."""

    stop: asyncio.Future[None]
    holding: Holding


class _Subscription:
    """What is told on a stream of `subscriptions/listen`: the acknowledgement first, and of resources only those that it names."""

    def __init__(self, outlet: Outlet, request_id: Any) -> None:
        self._outlet = outlet
        self._early: list[tuple[str, Mapping[str, Any]]] | None = []  # what was to be told before the acknowledgement
        self._uris: frozenset[str] = frozenset()
        self.marked = {ID_KEY: request_id}

    def acknowledge(self, held: Interest, tasks: Collection[str]) -> None:
        """Says what is told from now on."""
        early, self._early, self._uris = self._early or (), None, held.uris
        told = {"taskIds": list(tasks)} if tasks else {}
        self.say(ACKNOWLEDGED, {"notifications": {**_shown(held), **told}})
        for method, params in early:
            self.say(method, params)

    def say(self, method: str, params: Mapping[str, Any]) -> None:
        if self._early is not None:
            self._early.append((method, params))
        elif method != UPDATED or params.get("uri") in self._uris:
            meta = params.get("_meta")
            self._outlet.say(_notification(method, {**params, "_meta": {**(meta if isinstance(meta, dict) else {}), **self.marked}}))


def _unpublished(holds: Mapping[str, bool]) -> None:
    """One process alone has nobody to tell."""


def _answer(known: Mapping[str, bool], uri: str) -> bool:
    """Raises NotReachable."""
    if uri not in known:
        raise NotReachable
    return known[uri]


def _settle(stop: asyncio.Future[None]) -> None:
    if not stop.done():
        stop.set_result(None)


def _filter(given: Any) -> Interest:
    """Raises BadEnvelope."""
    if not isinstance(given, dict):
        raise BadEnvelope(INVALID_PARAMS, "params.notifications must be an object")
    tools, prompts, resources = (given.get(name, False) for name in FLAGS)
    uris = given.get("resourceSubscriptions", [])
    if not all(isinstance(flag, bool) for flag in (tools, prompts, resources)):
        raise BadEnvelope(INVALID_PARAMS, "params.notifications: each …ListChanged must be true or false")
    if not isinstance(uris, list) or len(uris) > URIS_MAX or not all(isinstance(uri, str) for uri in uris):
        raise BadEnvelope(INVALID_PARAMS, f"params.notifications.resourceSubscriptions must be a list of at most {URIS_MAX} strings")
    return Interest(tools, prompts, resources, frozenset(uris))


def _shown(granted: Interest) -> dict[str, Any]:
    flags = (granted.tools, granted.prompts, granted.resources)
    shown: dict[str, Any] = {name: True for name, flag in zip(FLAGS, flags, strict=True) if flag}
    return shown | ({"resourceSubscriptions": sorted(granted.uris)} if granted.uris else {})


def _message(method: str, params: Mapping[str, Any]) -> bytes:
    return encode({"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})})


def _notification(method: str, params: Mapping[str, Any]) -> bytes:
    return event(_message(method, params))
