"""Sends changes of lists and resources outside of requests: to `subscriptions/listen`, and to GET streams of legacy clients."""

import asyncio
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
from adapters.mcp_client.wire.peer import ListenFilter, PeerRefused
from adapters.upstream.targets import EgressRefused
from gateway.calls.authorizer import CallRefused
from gateway.calls.server_calls import ListenRequest, ServerCalls
from gateway.concurrency.background import run_in_background
from gateway.ingress.http.errors import UnknownResource
from gateway.ingress.mcp_server.catalogue.hidden import Catalogue
from gateway.ingress.mcp_server.subscriptions.confirmations import Confirmations
from gateway.ingress.mcp_server.subscriptions.upstream_watch import UpstreamWatcher
from gateway.storage.database import ReadFailed, WriteFailed
from gateway.telemetry.spans import TraceContext
from policies.callers import Caller
from policies.delegation.kills import Killed
from policies.delegation.rulings import act_of_reading_resource
from policies.tokens.verifier import TokenRefused
from registry.health.reachability import NotReachable
from registry.store import UnknownName

POLL_SECONDS = 5.0  # between two polls for changes of other processes
SECOND_POLL_SECONDS = 1.0
SETTLE_SECONDS = 0.2  # changes within this time become one notification
RETRY_MAX_SECONDS = 60.0  # between two attempts to listen to a server
RESOURCE_UPDATED = "notifications/resources/updated"
log = structlog.get_logger()
Notify = Callable[[str, Mapping[str, Any]], object]
Ask = Callable[[str, Raw], Awaitable[Raw]]
DigestOfList = Callable[[Caller, str], Awaitable[str]]
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class Interest:
    """What a client wants to be notified of, by the names of its endpoint."""

    tools: bool = False
    prompts: bool = False
    resources: bool = False
    uris: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A client that is notified. `ask` is None where it can't be asked. `session` is that of the legacy era."""

    caller: Caller
    server_path: str
    trace_context: TraceContext
    notify: Notify
    capabilities: Mapping[str, Any]
    ask: Ask | None = None
    session: str = ""
    confirmations: Confirmations = field(default_factory=Confirmations)


class ChangeBroadcast:
    """Wakes all subscribers when something may have changed."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Event] = set()

    def __call__(self) -> None:
        for moved in self._listeners:
            moved.set()

    @contextmanager
    def subscribe(self) -> Iterator[asyncio.Event]:
        moved = asyncio.Event()
        self._listeners.add(moved)
        try:
            yield moved
        finally:
            self._listeners.discard(moved)


class _ResourceListener:
    """Listens to one server for a subscriber. `uris` maps the server's own URIs to those of the subscriber.

    `previous` is the task that this one replaces. It runs until this one is confirmed, so that no update is missed.
    """

    def __init__(self, subscriber: Subscriber, uris: Mapping[str, str], previous: "asyncio.Task[None] | None" = None) -> None:
        self._subscriber = subscriber
        self._previous = previous
        self.uris = uris

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return self._subscriber.capabilities

    async def on_acknowledged(self, granted: ListenFilter) -> None:
        """Confirms the granted resources. Others may be granted at the next attempt."""
        self.confirm(granted.uris)

    def confirm(self, own_uris: Iterable[str]) -> None:
        """Records the server's answer, which names resources by its own URIs, and ends the previous task."""
        self.cancel_previous()
        self._subscriber.confirmations.confirm(self.uris.values(), [self.uris[each] for each in own_uris if each in self.uris])

    def cancel_previous(self) -> None:
        """Cancels the task that this one replaces."""
        if self._previous is not None:
            self._previous.cancel()
            self._previous = None

    async def notify(self, method: str, params: Raw) -> None:
        updated = _decode_object(params)
        shown = self.uris.get(str(updated.get("uri")))
        if method == RESOURCE_UPDATED and shown is not None:
            self._subscriber.notify(RESOURCE_UPDATED, {**updated, "uri": shown})

    async def ask(self, method: str, params: Raw) -> Raw:
        if self._subscriber.ask is None:
            raise PeerRefused(-32601, "The client can't be asked outside of a request")
        return await self._subscriber.ask(method, params)


ServerListeners = dict[str, tuple[Mapping[str, str], asyncio.Task[None]]]


class NotificationFeed:
    """Notifies one subscriber until it is canceled or has no more interest."""

    def __init__(
        self, server_calls: ServerCalls, catalogue: Catalogue, changes: ChangeBroadcast, upstream_watcher: UpstreamWatcher
    ) -> None:
        self._server_calls = server_calls
        self._catalogue = catalogue
        self._changes = changes
        self._upstream_watcher = upstream_watcher

    def granted_interest(self, caller: Caller, server_path: str, interest: Interest) -> Interest:
        """Returns the part of the interest that this caller may be notified of."""
        return Interest(
            interest.tools,
            interest.prompts,
            interest.resources,
            frozenset(uri for uri in interest.uris if self._resolve_own(caller, server_path, uri)),
        )

    async def run(self, subscriber: Subscriber, interest: Callable[[], Awaitable[Interest | None]]) -> None:
        """Notifies the subscriber. `interest` is called again after each change; None ends the feed."""
        followers: ServerListeners = {}
        notified: dict[str, str] = {}
        interest_changed = subscriber.confirmations.interest_changed
        wanted = await interest()
        try:
            with self._changes.subscribe() as moved, self._upstream_watcher.watch_servers() as watch:
                followed: frozenset[str] | None = None
                polls_left = 1  # polls of the lists; two after a change, which may not be visible at once
                while wanted is not None:
                    interest_changed.clear()
                    if polls_left or wanted.uris != followed:
                        self._listen_to_servers(subscriber, wanted.uris, followers)
                        followed = wanted.uris
                    if polls_left:
                        if wanted.tools or wanted.prompts or wanted.resources:
                            watch(await self._catalogue.visible_entries.visible_servers(subscriber.caller, subscriber.server_path))
                        notified, polls_left = await self._notify_changed_lists(subscriber, wanted, notified), polls_left - 1
                        subscriber.confirmations.lists_read.set()
                    polls_left = (
                        2
                        if await _wait_for_change(moved, interest_changed, SECOND_POLL_SECONDS if polls_left else POLL_SECONDS)
                        else polls_left
                    )
                    wanted = await interest()
        finally:
            tasks = [task for _, task in followers.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _notify_changed_lists(
        self, subscriber: Subscriber, interest: Interest, previous_digests: Mapping[str, str]
    ) -> dict[str, str]:
        """Notifies of lists whose digests differ from the previous ones. Returns the current digests."""
        catalogue = self._catalogue
        digests: dict[str, DigestOfList] = {}
        if interest.tools:
            digests["tools"] = catalogue.tools.digest
        if interest.prompts:
            digests["prompts"] = catalogue.prompts.digest
        if interest.resources:
            digests["resources"] = catalogue.resources.digest
        now = {kind: await _digest_for(subscriber, digest) for kind, digest in digests.items()}
        for kind, digest in now.items():
            if previous_digests.get(kind, digest) != digest:
                subscriber.notify(f"notifications/{kind}/list_changed", {})
        return now

    def _listen_to_servers(self, subscriber: Subscriber, uris: frozenset[str], followers: ServerListeners) -> None:
        """Listens to each server that has any of the resources, and stops listening to others."""
        wanted: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for uri in uris:
            own = self._resolve_own(subscriber.caller, subscriber.server_path, uri)
            if own is not None:
                wanted[own[0]][own[1]] = uri
        found = {shown for each in wanted.values() for shown in each.values()}
        subscriber.confirmations.retain(found)
        subscriber.confirmations.confirm(uris - found, ())
        for server in followers.keys() - wanted.keys():
            followers.pop(server)[1].cancel()
        for server, server_uris in wanted.items():
            previous = followers.get(server)
            if previous is None or previous[0] != server_uris or previous[1].done():
                follower = _ResourceListener(subscriber, server_uris, previous[1] if previous else None)
                followers[server] = (
                    server_uris,
                    run_in_background(self._listen_to_server(subscriber, server, follower), "mcp_listen_failed", server=server),
                )

    def _resolve_own(self, caller: Caller, server_path: str, uri: str) -> tuple[str, str] | None:
        """Returns the server and its own URI of a resource, or None when the caller may not read it."""
        offers = self._catalogue.visible_entries
        try:
            found = self._catalogue.resources.resolve(caller, server_path, uri)
            allowed = offers.could_allow(caller, offers.find_server(caller, found.server), act_of_reading_resource(found.server))
        except (UnknownResource, UnknownName, NotReachable):
            return None
        return (found.server, found.uri) if allowed else None

    async def _listen_to_server(self, subscriber: Subscriber, server: str, follower: _ResourceListener) -> None:
        """Listens until it is canceled, with exponential backoff while the server fails."""
        wanted, patience = ListenFilter(uris=frozenset(follower.uris)), 1.0
        listening = ListenRequest(server, act_of_reading_resource(server), wanted, follower, subscriber.trace_context, subscriber.session)
        try:
            while True:
                began = asyncio.get_running_loop().time()
                try:
                    await self._server_calls.listen(subscriber.caller, listening)
                except (UpstreamFault, McpRefused, EgressRefused, WriteFailed, ReadFailed) as error:
                    log.info("mcp_listen_failed", server=server, error=type(error).__name__)
                    follower.confirm(())
                except (CallRefused, UnknownName, Killed, TokenRefused):
                    follower.confirm(())
                    return
                lasted = asyncio.get_running_loop().time() - began
                patience = 1.0 if lasted > RETRY_MAX_SECONDS else min(RETRY_MAX_SECONDS, patience * 2)
                await asyncio.sleep(patience)
        finally:
            follower.cancel_previous()


async def _digest_for(subscriber: Subscriber, digest: DigestOfList) -> str:
    """Returns the digest of a list; an empty text for an endpoint that the subscriber may not know of."""
    try:
        return await digest(subscriber.caller, subscriber.server_path)
    except (UnknownName, NotReachable):
        return ""


async def _wait_for_change(changed: asyncio.Event, interest_changed: asyncio.Event, seconds: float) -> bool:
    """Returns whether something changed within `seconds`. Returns early when the subscriber's interest changes."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (changed, interest_changed)]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
    if not changed.is_set():
        return False
    if not interest_changed.is_set():
        await asyncio.sleep(SETTLE_SECONDS)
    changed.clear()
    return True
