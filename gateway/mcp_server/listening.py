"""Streams that stay open: `subscriptions/listen` of modern clients, GET of older ones."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from adapters.mcp_wire import INVALID_PARAMS, META
from gateway.admission import Admission
from gateway.loose import let_go
from gateway.mcp_server.asked import Asked
from gateway.mcp_server.exchange import Line
from gateway.mcp_server.exchange import asked as ask_client
from gateway.mcp_server.modern import BadEnvelope
from gateway.mcp_server.outlet import Outlet, event
from gateway.mcp_server.sessions import Session, Sessions
from gateway.mcp_server.subscriptions import LOOK_SECONDS, Audience, Feed, Interest
from gateway.mcp_server.task_feed import TaskFeed, task_ids
from gateway.places import Places
from policies.callers import Caller
from policies.identity import TokenRefused
from policies.kills import Killed

URIS_MAX = 1000
RESUMED_MAX = 8  # streams of one session that are gone on with at a time; the oldest makes room
FLAGS = ("toolsListChanged", "promptsListChanged", "resourcesListChanged")
OPENED = b": open\n\n"
ID_KEY = META + "subscriptionId"
encode = msgspec.json.Encoder().encode


class Listeners:
    """Serves them. When the gateway closes, or the token that opened one is not good any more, they end in order."""

    def __init__(self, admission: Admission, feeds: tuple[Feed, TaskFeed], sessions: Sessions, line: Line, places: Places) -> None:
        self._admission = admission
        self._feed, self._task_feed = feeds
        self._sessions = sessions
        self._streams = line.streams
        self._line = line
        self._now = line.now
        self._places = places
        self._closing = False
        self._open: dict[asyncio.Future[None], Caller] = {}
        self._resumed: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)  # of each session, the oldest first
        self._general: dict[str, asyncio.Future[None]] = {}  # of each session the GET stream, one at a time

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
        marked = {ID_KEY: asked.id}

        def say(method: str, params: Mapping[str, Any]) -> None:
            meta = params.get("_meta")
            outlet.say(_notification(method, {**params, "_meta": {**(meta if isinstance(meta, dict) else {}), **marked}}))

        told = {"taskIds": list(tasks)} if tasks else {}
        say("notifications/subscriptions/acknowledged", {"notifications": {**_shown(granted), **told}})
        capabilities = asked.capabilities
        audience = Audience(asked.caller, asked.server, asked.trail, say, capabilities)
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        following = let_go(self._task_feed.run(asked, tasks, say), "mcp_tasks_not_followed")
        try:
            await self._run(asked.caller, outlet, place.during(self._feed.run(audience, lambda: self._still(asked, granted))), stop)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        return encode({"resultType": "complete", "_meta": marked})

    async def general(self, asked: Asked, session: Session, outlet: Outlet) -> None:
        """An older client's GET stream. A second one of the same session takes the place of the first. Raises TooManyStreams."""
        place = self._places.take(asked.caller.principal.owner)
        stream = self._streams.open(session)

        def say(method: str, params: Mapping[str, Any]) -> None:
            outlet.say(stream.event(_message(method, params)))

        async def ask(method: str, params: Raw) -> Raw:
            return await ask_client(self._line, session, lambda body: outlet.say(stream.event(body)), (method, params))

        outlet.say(OPENED + stream.first())
        audience = Audience(asked.caller, asked.server, asked.trail, say, session.capabilities, ask, session.id)
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if (before := self._general.get(session.id)) is not None:
            _settle(before)
        self._general[session.id] = stop
        try:
            await self._run(asked.caller, outlet, place.during(self._feed.run(audience, lambda: self._subscribed(asked, session))), stop)
        finally:
            if self._general.get(session.id) is stop:
                del self._general[session.id]
            await outlet.end()

    async def resumed(self, asked: Asked, session: Session, last_event_id: str, outlet: Outlet) -> None:
        """Goes on with a stream that broke. Raises TooManyStreams."""
        place = self._places.take(asked.caller.principal.owner)
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine = self._resumed[session.id]
        mine.append(stop)
        for before in mine[:-RESUMED_MAX]:
            _settle(before)
        outlet.say(OPENED)
        try:
            await self._run(asked.caller, outlet, place.during(self._again(asked, session, last_event_id, outlet)), stop)
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
                outlet.say(framed)

    async def _run(self, caller: Caller, outlet: Outlet, work: Coroutine[Any, Any, None], stop: asyncio.Future[None]) -> None:
        """Until the client leaves, `stop` is settled, the token's time is over or nothing is wanted any more."""
        telling = let_go(work, "mcp_stream_broke")
        self._open[stop] = caller
        if self._closing:
            _settle(stop)
        left = max(0.0, caller.expires - self._now())
        try:
            await asyncio.wait([telling, outlet.stream, stop], timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.pop(stop, None)
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

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
