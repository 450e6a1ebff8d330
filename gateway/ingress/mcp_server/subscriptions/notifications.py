"""What is told outside of any request: changed lists and changed resources, to `subscriptions/listen` and to older clients' GET streams."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from msgspec import Raw

from adapters.contract import UpstreamFault
from adapters.mcp_client.wire.messages import McpRefused
from adapters.mcp_client.wire.peer import Listening, PeerRefused
from adapters.upstream.targets import EgressRefused
from gateway.background import let_go
from gateway.calls.authorizer import Refused
from gateway.calls.broker import Broker, ServerListening
from gateway.calls.outgoing.upstreams import Trail
from gateway.ingress.http.errors import UnknownResource
from gateway.ingress.mcp_server.subscriptions.confirmations import Holding
from gateway.ingress.mcp_server.subscriptions.upstream_watch import Watching
from gateway.ingress.mcp_server.upstream_requests import Catalogue
from gateway.storage.database import NotKept, NotRead
from policies.callers import Caller
from policies.delegation.kills import Killed
from policies.delegation.rulings import reading
from policies.tokens.verifier import TokenRefused
from registry.health.reachability import NotReachable
from registry.store import UnknownName

LOOK_SECONDS = 5.0  # between two looks at what other processes may have changed
AGAIN_SECONDS = 1.0
SETTLE_SECONDS = 0.2  # several changes at once are told as one
PATIENCE_MAX = 60.0  # seconds between two tries to listen to a server
UPDATED = "notifications/resources/updated"
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()
Say = Callable[[str, Mapping[str, Any]], object]
Ask = Callable[[str, Raw], Awaitable[Raw]]
_object = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class Interest:
    """What somebody wants to be told of, by the names of the path they came to."""

    tools: bool = False
    prompts: bool = False
    resources: bool = False
    uris: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Audience:
    """Who is told, and how. `ask` is None where nothing can be asked. `session` is of the initialize era."""

    caller: Caller
    server: str
    trail: Trail
    say: Say
    capabilities: Mapping[str, Any]
    ask: Ask | None = None
    session: str = ""
    holding: Holding = field(default_factory=Holding)


class Changes:
    """Wakes everybody who listens when something may have changed."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Event] = set()

    def __call__(self) -> None:
        for moved in self._listeners:
            moved.set()

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        moved = asyncio.Event()
        self._listeners.add(moved)
        try:
            yield moved
        finally:
            self._listeners.discard(moved)


class _Follower:
    """Listens to one server on behalf of an audience; what the server calls `own` is told as `uris` say.

    `before` is the task that it takes the place of, which goes on until this one holds, so that nothing is missed between.
    """

    def __init__(self, audience: Audience, uris: Mapping[str, str], before: "asyncio.Task[None] | None" = None) -> None:
        self._audience = audience
        self._before = before
        self.uris = uris

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return self._audience.capabilities

    async def acknowledged(self, granted: Listening) -> None:
        """What is not granted now may be when the server is asked again."""
        self.settle(granted.uris)

    def settle(self, own: Iterable[str]) -> None:
        """The server has answered: it tells of these resources, which are named as it does."""
        self.leave()
        self._audience.holding.settle(self.uris.values(), [self.uris[each] for each in own if each in self.uris])

    def leave(self) -> None:
        """Ends the task before this one."""
        if self._before is not None:
            self._before.cancel()
            self._before = None

    async def notify(self, method: str, params: Raw) -> None:
        told = _object(params)
        shown = self.uris.get(str(told.get("uri")))
        if method == UPDATED and shown is not None:
            self._audience.say(UPDATED, {**told, "uri": shown})

    async def ask(self, method: str, params: Raw) -> Raw:
        if self._audience.ask is None:
            raise PeerRefused(-32601, "The client can't be asked outside of a request")
        return await self._audience.ask(method, params)


Followers = dict[str, tuple[Mapping[str, str], asyncio.Task[None]]]


class Feed:
    """Tells one audience until it is cancelled, or wants nothing more."""

    def __init__(self, broker: Broker, catalogue: Catalogue, changes: Changes, watching: Watching) -> None:
        self._broker = broker
        self._catalogue = catalogue
        self._changes = changes
        self._watching = watching

    def granted(self, caller: Caller, server: str, interest: Interest) -> Interest:
        """What of it can be told to this caller."""
        return Interest(
            interest.tools, interest.prompts, interest.resources, frozenset(uri for uri in interest.uris if self._own(caller, server, uri))
        )

    async def run(self, audience: Audience, interest: Callable[[], Awaitable[Interest | None]]) -> None:
        """`interest` is asked again after each change; None ends it."""
        followers: Followers = {}
        told: dict[str, str] = {}
        asked = audience.holding.asked
        wanted = await interest()
        try:
            with self._changes.listening() as moved, self._watching.following() as watch:
                followed: frozenset[str] | None = None
                looks = 1  # at the lists; two after a change, since what they are made of may still be on its way
                while wanted is not None:
                    asked.clear()
                    if looks or wanted.uris != followed:
                        self._follow(audience, wanted.uris, followers)
                        followed = wanted.uris
                    if looks:
                        if wanted.tools or wanted.prompts or wanted.resources:
                            watch(self._catalogue.offers.listened(audience.caller, audience.server))
                        told, looks = self._tell(audience, wanted, told), looks - 1
                    looks = 2 if await _wait(moved, asked, AGAIN_SECONDS if looks else LOOK_SECONDS) else looks
                    wanted = await interest()
        finally:
            tasks = [task for _, task in followers.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _tell(self, audience: Audience, wanted: Interest, told: Mapping[str, str]) -> dict[str, str]:
        """Says which lists are other than they were when they were `told` of; gives what they are."""
        tools, prompts, resources = self._catalogue.tools, self._catalogue.prompts, self._catalogue.resources
        lists: dict[str, tuple[Callable[..., Any], ...]] = {}
        if wanted.tools:
            lists["tools"] = (tools.listed,)
        if wanted.prompts:
            lists["prompts"] = (prompts.listed,)
        if wanted.resources:
            lists["resources"] = (resources.listed, resources.templates)
        now = {kind: self._digest(audience, each) for kind, each in lists.items()}
        for kind, digest in now.items():
            if told.get(kind, digest) != digest:
                audience.say(f"notifications/{kind}/list_changed", {})
        return now

    def _digest(self, audience: Audience, lists: tuple[Callable[..., Any], ...]) -> str:
        try:
            return hashlib.sha256(encode([each(audience.caller, audience.server) for each in lists])).hexdigest()
        except (UnknownName, NotReachable):
            return ""

    def _follow(self, audience: Audience, uris: frozenset[str], followers: Followers) -> None:
        """Listens to each server that has any of the resources, and to no other."""
        wanted: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for uri in uris:
            own = self._own(audience.caller, audience.server, uri)
            if own is not None:
                wanted[own[0]][own[1]] = uri
        found = {shown for each in wanted.values() for shown in each.values()}
        audience.holding.keep(found)
        audience.holding.settle(uris - found, ())
        for server in followers.keys() - wanted.keys():
            followers.pop(server)[1].cancel()
        for server, mine in wanted.items():
            before = followers.get(server)
            if before is None or before[0] != mine or before[1].done():
                follower = _Follower(audience, mine, before[1] if before else None)
                followers[server] = (mine, let_go(self._listen(audience, server, follower), "mcp_not_listened", server=server))

    def _own(self, caller: Caller, server: str, uri: str) -> tuple[str, str] | None:
        """The server and its own name of a resource; None for what this caller may not read."""
        offers = self._catalogue.offers
        try:
            found = self._catalogue.resources.resolve(caller, server, uri)
            allowed = offers.may(caller, offers.server(caller, found.server), reading(found.server))
        except (UnknownResource, UnknownName, NotReachable):
            return None
        return (found.server, found.uri) if allowed else None

    async def _listen(self, audience: Audience, server: str, follower: _Follower) -> None:
        """Again and again, with growing patience where the server fails."""
        wanted, patience = Listening(uris=frozenset(follower.uris)), 1.0
        listening = ServerListening(server, reading(server), wanted, follower, audience.trail, audience.session)
        try:
            while True:
                began = asyncio.get_running_loop().time()
                try:
                    await self._broker.listen(audience.caller, listening)
                except (UpstreamFault, McpRefused, EgressRefused, NotKept, NotRead) as error:
                    log.info("mcp_not_listened", server=server, error=type(error).__name__)
                    follower.settle(())
                except (Refused, UnknownName, Killed, TokenRefused):
                    follower.settle(())
                    return
                lasted = asyncio.get_running_loop().time() - began
                patience = 1.0 if lasted > PATIENCE_MAX else min(PATIENCE_MAX, patience * 2)
                await asyncio.sleep(patience)
        finally:
            follower.leave()


async def _wait(moved: asyncio.Event, asked: asyncio.Event, seconds: float) -> bool:
    """Whether something may have changed here, within so many seconds or until the audience asks for something else."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (moved, asked)]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
    if not moved.is_set():
        return False
    if not asked.is_set():
        await asyncio.sleep(SETTLE_SECONDS)
    moved.clear()
    return True
