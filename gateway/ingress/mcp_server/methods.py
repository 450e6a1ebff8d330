"""Which methods there are, in which era, and who answers them."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw

from adapters.mcp_client.wire.messages import INVALID_PARAMS, LEGACY, META, MODERN
from adapters.mcp_client.wire.peer import Peer
from adapters.version import VERSION
from gateway.ingress.http.empty_lists import Candidates, EmptyLists
from gateway.ingress.http.errors import UnknownMethod, UnknownResource
from gateway.ingress.mcp_server.catalogue.instructions import instructions_of
from gateway.ingress.mcp_server.protocol import modern
from gateway.ingress.mcp_server.protocol.client_wishes import check_level
from gateway.ingress.mcp_server.protocol.message import Asked
from gateway.ingress.mcp_server.protocol.sessions import Session, Sessions
from gateway.ingress.mcp_server.subscriptions.streams import Listeners
from gateway.ingress.mcp_server.tasks.methods import Tasks
from gateway.ingress.mcp_server.tasks.wire import OFFERED, OLDER_OFFERED, OLDER_VERSION
from gateway.ingress.mcp_server.upstream_requests import Catalogue, Relay
from policies.callers import Caller
from policies.delegation.rulings import reading
from registry.health.reachability import NotReachable

INFO = {"name": "interlock", "title": "Interlock gateway", "version": VERSION}
CAPABILITIES: dict[str, Any] = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "completions": {},
    "logging": {},
}
LIST_TTL_MS = 5_000
PAGE = 1_000  # entries of a list in one answer
CURSOR = "after-"  # followed by the number of entries on the pages before
UNAVAILABLE = "dev.interlock/unavailable"  # in the `_meta` of a list: servers that do not answer now
EMPTY = "dev.interlock/empty"  # in the `_meta` of an empty list: why the caller's token has nothing in it
encode = msgspec.json.Encoder().encode
Method = Callable[[Asked, Peer | None], Awaitable[bytes]]


class Methods:
    """Requests that are answered once; streams and `initialize` are the endpoint's own."""

    def __init__(
        self, relay: Relay, tasks: Tasks, catalogue: Catalogue, sessions: Sessions, listeners: Listeners, *, empty: EmptyLists
    ) -> None:
        self._catalogue = catalogue
        self._empty = empty
        self._sessions = sessions
        self._listeners = listeners
        both: dict[str, Method] = {
            "tools/call": relay.call,
            "tools/list": self._list_tools,
            "prompts/list": self._list_prompts,
            "prompts/get": relay.get_prompt,
            "resources/list": self._list_resources,
            "resources/templates/list": self._list_templates,
            "resources/read": relay.read,
            "completion/complete": relay.complete,
        }
        self._modern = {
            **both,
            "server/discover": self._discover,
            "tasks/get": tasks.get,
            "tasks/update": tasks.update,
            "tasks/cancel": tasks.cancel,
        }
        self._legacy = {
            **both,
            "ping": self._ping,
            "logging/setLevel": self._set_level,
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._unsubscribe,
            "tasks/get": tasks.get_older,
            "tasks/result": tasks.result_older,
            "tasks/list": tasks.list_older,
            "tasks/cancel": tasks.cancel_older,
        }

    def of(self, asked: Asked) -> Method:
        """Raises UnknownMethod."""
        method = (self._modern if asked.modern else self._legacy).get(asked.method)
        if method is None:
            raise UnknownMethod
        return method

    def check_server(self, asked: Asked) -> None:
        """Raises UnknownName where the caller may not know of the server that the path names."""
        if asked.server:
            self._catalogue.tools.check(asked.caller, asked.server)

    def initialized(self, asked: Asked, session: Session) -> bytes:
        """The result of `initialize`."""
        capabilities = CAPABILITIES | dict(OLDER_OFFERED if session.version == OLDER_VERSION else {})
        said = {"protocolVersion": session.version, "capabilities": capabilities, "serverInfo": INFO}
        return encode(said | self._instructions(asked))

    def _instructions(self, asked: Asked) -> dict[str, str]:
        """The member `instructions`, where there are any."""
        text = instructions_of(self._catalogue.offers, asked.caller, asked.server, self._catalogue.tools.separator)
        return {"instructions": text} if text else {}

    async def _discover(self, asked: Asked, peer: Peer | None) -> bytes:
        self.check_server(asked)
        return encode(
            {
                "resultType": "complete",
                "supportedVersions": [MODERN, *LEGACY],
                "capabilities": {**CAPABILITIES, **OFFERED},
                "serverInfo": INFO,
                "ttlMs": LIST_TTL_MS,
                "cacheScope": "private",
                "_meta": {META + "serverInfo": INFO},
                **self._instructions(asked),
            }
        )

    async def _ping(self, asked: Asked, peer: Peer | None) -> bytes:
        return b"{}"

    async def _list_tools(self, asked: Asked, peer: Peer | None) -> bytes:
        if self._catalogue.searching.applies(asked):
            return await self._list(asked, "tools", self._catalogue.searching.listed(asked), lambda _caller, _place: ())
        await self._catalogue.tools.list(asked.caller, asked.server)
        tools = self._catalogue.tools
        return await self._list(asked, "tools", tools.listed(asked.caller, asked.server), tools.candidates)

    async def _list_prompts(self, asked: Asked, peer: Peer | None) -> bytes:
        prompts = self._catalogue.prompts
        return await self._list(asked, "prompts", prompts.listed(asked.caller, asked.server), prompts.candidates)

    async def _list_resources(self, asked: Asked, peer: Peer | None) -> bytes:
        resources = self._catalogue.resources
        found = resources.listed(asked.caller, asked.server)
        return await self._list(asked, "resources", found, partial(resources.permitted, kind="resources"))

    async def _list_templates(self, asked: Asked, peer: Peer | None) -> bytes:
        resources = self._catalogue.resources
        found = resources.templates(asked.caller, asked.server)
        return await self._list(asked, "resourceTemplates", found, partial(resources.permitted, kind="templates"))

    async def _set_level(self, asked: Asked, peer: Peer | None) -> bytes:
        level = check_level(asked.object().get("level"))
        if asked.session is not None:
            await self._sessions.set_level(asked.session, level)
        return b"{}"

    async def _subscribe(self, asked: Asked, peer: Peer | None) -> bytes:
        """Kept with the session, whose GET stream tells of it; answered once it holds there, at whichever process."""
        uri, caller, offers = asked.text("uri"), asked.caller, self._catalogue.offers
        found = self._catalogue.resources.resolve(caller, asked.server, uri)
        if not offers.may(caller, offers.server(caller, found.server), reading(found.server)):
            raise UnknownResource
        if asked.session is None:
            return b"{}"
        streamer = await self._sessions.subscribe(asked.session, uri)
        try:
            holds = await self._listeners.holds(asked.session, uri, streamer)
        except NotReachable:
            await self._sessions.unsubscribe(asked.session, uri)
            raise
        if not holds:
            await self._sessions.unsubscribe(asked.session, uri)
            raise modern.BadEnvelope(INVALID_PARAMS, "the server does not tell of changes of this resource", status=200)
        return b"{}"

    async def _unsubscribe(self, asked: Asked, peer: Peer | None) -> bytes:
        uri = asked.text("uri")
        if asked.session is not None:
            await self._listeners.released(asked.session, uri, await self._sessions.unsubscribe(asked.session, uri))
        return b"{}"

    async def _list(self, asked: Asked, kind: str, found: Sequence[Raw], candidates: Callable[[Caller, str], Candidates]) -> bytes:
        """A page of a list, with the cursor of the next one. Servers that don't answer are named, since what they have is missing.

        An empty list says why if the token is the reason. Raises BadEnvelope for a cursor that is not of this list.
        """
        start = _page_start(asked, len(found))
        more = {"nextCursor": f"{CURSOR}{start + PAGE}"} if start + PAGE < len(found) else {}
        meta: dict[str, Any] = {}
        if missing := [entry.name for entry in self._catalogue.offers.away(asked.caller, asked.server)]:
            meta[UNAVAILABLE] = missing
        if not found:
            reason = await self._empty.reason(asked.caller, asked.resource, lambda other: candidates(other, asked.server))
            meta |= {EMPTY: reason} if reason else {}
        result: dict[str, Any] = {kind: found[start : start + PAGE], **more} | ({"_meta": meta} if meta else {})
        if not asked.modern:
            return encode(result)
        return encode({"resultType": "complete", **result, "ttlMs": LIST_TTL_MS, "cacheScope": "private"})


def _page_start(asked: Asked, length: int) -> int:
    """The number of entries before the page that `params.cursor` names. Raises BadEnvelope."""
    cursor = asked.params.get("cursor") if isinstance(asked.params, dict) else None
    if cursor is None:
        return 0
    number = cursor.removeprefix(CURSOR) if isinstance(cursor, str) and cursor.startswith(CURSOR) else ""
    start = int(number) if number.isascii() and number.isdigit() and len(number) < 9 else 0
    if not 0 < start < length or start % PAGE:
        raise modern.BadEnvelope(INVALID_PARAMS, "params.cursor is none of this list's; begin again without one")
    return start
