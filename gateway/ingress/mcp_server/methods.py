"""The methods of each MCP era and the functions that answer them."""

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw

from adapters.mcp_client.wire.messages import INVALID_PARAMS, LEGACY, META_PREFIX, MODERN
from adapters.mcp_client.wire.peer import McpPeer
from adapters.version import VERSION
from gateway.ingress.http.empty_lists import Candidates, EmptyListReasons
from gateway.ingress.http.errors import UnknownMethod, UnknownResource
from gateway.ingress.mcp_server.catalogue.hidden import Catalogue
from gateway.ingress.mcp_server.catalogue.instructions import instructions_of
from gateway.ingress.mcp_server.protocol import modern
from gateway.ingress.mcp_server.protocol.client_wishes import check_level
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.protocol.sessions import McpSession, McpSessions
from gateway.ingress.mcp_server.subscriptions.streams import NotificationStreams
from gateway.ingress.mcp_server.tasks.methods import TaskMethods
from gateway.ingress.mcp_server.tasks.wire import LEGACY_TASKS_CAPABILITY, LEGACY_TASKS_VERSION, TASKS_CAPABILITY
from gateway.ingress.mcp_server.upstream_requests import UpstreamRequests
from policies.callers import Caller
from policies.delegation.rulings import act_of_reading_resource
from registry.health.reachability import NotReachable

SERVER_INFO = {"name": "interlock", "title": "Interlock gateway", "version": VERSION}
CAPABILITIES: dict[str, Any] = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "completions": {},
    "logging": {},
}
LIST_TTL_MS = 5_000
PAGE = 1_000  # entries in one page of a list
CURSOR = "after-"  # followed by the number of entries on the pages before
UNAVAILABLE_KEY = "dev.interlock/unavailable"  # in the `_meta` of a list: servers that are unreachable now
EMPTY_KEY = "dev.interlock/empty"  # in the `_meta` of a list that is empty because of the caller's token
encode = msgspec.json.Encoder().encode
Method = Callable[[ClientMessage, McpPeer | None], Coroutine[Any, Any, bytes]]


class MethodTable:
    """Requests with one answer. The dispatcher handles streams and `initialize`."""

    def __init__(
        self,
        upstream_requests: UpstreamRequests,
        tasks: TaskMethods,
        catalogue: Catalogue,
        sessions: McpSessions,
        notification_streams: NotificationStreams,
        *,
        empty_lists: EmptyListReasons,
    ) -> None:
        self._catalogue = catalogue
        self._empty_lists = empty_lists
        self._sessions = sessions
        self._notification_streams = notification_streams
        both: dict[str, Method] = {
            "tools/call": upstream_requests.call_tool,
            "tools/list": self._list_tools,
            "prompts/list": self._list_prompts,
            "prompts/get": upstream_requests.get_prompt,
            "resources/list": self._list_resources,
            "resources/templates/list": self._list_templates,
            "resources/read": upstream_requests.read_resource,
            "completion/complete": upstream_requests.complete,
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
            "tasks/get": tasks.get_legacy,
            "tasks/result": tasks.result_legacy,
            "tasks/list": tasks.list_legacy,
            "tasks/cancel": tasks.cancel_legacy,
        }

    def method_for(self, message: ClientMessage) -> Method:
        """Returns the function for a message. Raises UnknownMethod."""
        method = (self._modern if message.is_modern else self._legacy).get(message.method)
        if method is None:
            raise UnknownMethod
        return method

    def check_server(self, message: ClientMessage) -> None:
        """Raises UnknownName when the caller may not know of the server that the path names."""
        if message.server_path:
            self._catalogue.tools.check_visible(message.caller, message.server_path)

    async def initialize_result(self, message: ClientMessage, session: McpSession) -> bytes:
        """Returns the result of `initialize`."""
        capabilities = CAPABILITIES | dict(LEGACY_TASKS_CAPABILITY if session.version == LEGACY_TASKS_VERSION else {})
        result = {"protocolVersion": session.version, "capabilities": capabilities, "serverInfo": SERVER_INFO}
        return encode(result | await self._instructions_member(message))

    async def _instructions_member(self, message: ClientMessage) -> dict[str, str]:
        """Returns the member `instructions`, or nothing."""
        text = await instructions_of(self._catalogue.visible_entries, message.caller, message.server_path, self._catalogue.tools.separator)
        return {"instructions": text} if text else {}

    async def _discover(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        self.check_server(message)
        return encode(
            {
                "resultType": "complete",
                "supportedVersions": [MODERN, *LEGACY],
                "capabilities": {**CAPABILITIES, **TASKS_CAPABILITY},
                "serverInfo": SERVER_INFO,
                "ttlMs": LIST_TTL_MS,
                "cacheScope": "private",
                "_meta": {META_PREFIX + "serverInfo": SERVER_INFO},
                **await self._instructions_member(message),
            }
        )

    async def _ping(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        return b"{}"

    async def _list_tools(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        if self._catalogue.search_mode.is_on(message):
            return await self._encode_list(
                message, "tools", self._catalogue.search_mode.list_definitions(message), lambda _caller, _place: ()
            )
        tools = self._catalogue.tools
        found = await tools.list_definitions(message.caller, message.server_path, _needed_length(message))
        return await self._encode_list(message, "tools", found, tools.candidates)

    async def _list_prompts(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        prompts = self._catalogue.prompts
        found = await prompts.list_definitions(message.caller, message.server_path, _needed_length(message))
        return await self._encode_list(message, "prompts", found, prompts.candidates)

    async def _list_resources(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        resources = self._catalogue.resources
        found = await resources.list_definitions(message.caller, message.server_path, _needed_length(message))
        return await self._encode_list(message, "resources", found, partial(resources.candidates, kind="resources"))

    async def _list_templates(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        resources = self._catalogue.resources
        found = await resources.list_templates(message.caller, message.server_path, _needed_length(message))
        return await self._encode_list(message, "resourceTemplates", found, partial(resources.candidates, kind="templates"))

    async def _set_level(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        level = check_level(message.params_object().get("level"))
        if message.session is not None:
            await self._sessions.set_level(message.session, level)
        return b"{}"

    async def _subscribe(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Subscribes the session, whose GET stream sends the updates. Answers once the server has confirmed, at any process."""
        uri, caller, offers = message.string_param("uri"), message.caller, self._catalogue.visible_entries
        found = self._catalogue.resources.resolve(caller, message.server_path, uri)
        if not offers.could_allow(caller, offers.find_server(caller, found.server), act_of_reading_resource(found.server)):
            raise UnknownResource
        if message.session is None:
            return b"{}"
        streamer = await self._sessions.subscribe(message.session, uri)
        try:
            holds = await self._notification_streams.is_subscription_confirmed(message.session, uri, streamer)
        except NotReachable as error:
            await self._sessions.unsubscribe(message.session, uri)
            raise NotReachable(found.server) from error
        if not holds:
            await self._sessions.unsubscribe(message.session, uri)
            raise modern.BadEnvelope(INVALID_PARAMS, "the server does not send updates of this resource", status=200)
        return b"{}"

    async def _unsubscribe(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        uri = message.string_param("uri")
        if message.session is not None:
            await self._notification_streams.wait_until_unsubscribed(
                message.session, uri, await self._sessions.unsubscribe(message.session, uri)
            )
        return b"{}"

    async def _encode_list(
        self, message: ClientMessage, kind: str, found: Sequence[Raw], candidates: Callable[[Caller, str], Candidates]
    ) -> bytes:
        """Returns a page of a list and the cursor of the next page.

        Unreachable servers are named, since their entries are missing. An empty list says why if the token is the reason. Raises
        BadEnvelope for a cursor of another list.
        """
        start = _page_start(message, len(found))
        more = {"nextCursor": f"{CURSOR}{start + PAGE}"} if start + PAGE < len(found) else {}
        meta: dict[str, Any] = {}
        if missing := await self._catalogue.visible_entries.unreachable_names(message.caller, message.server_path):
            meta[UNAVAILABLE_KEY] = missing
        if not found:
            reason = await self._empty_lists.find_reason(
                message.caller, message.resource, lambda other: candidates(other, message.server_path)
            )
            meta |= {EMPTY_KEY: reason} if reason else {}
        result: dict[str, Any] = {kind: found[start : start + PAGE], **more} | ({"_meta": meta} if meta else {})
        if not message.is_modern:
            return encode(result)
        return encode({"resultType": "complete", **result, "ttlMs": LIST_TTL_MS, "cacheScope": "private"})


def _page_start(message: ClientMessage, length: int) -> int:
    """Returns the number of entries before the page of `params.cursor`. Raises BadEnvelope."""
    start = _cursor_number(message)
    if start is None:
        return 0
    if not 0 < start < length or start % PAGE:
        raise modern.BadEnvelope(INVALID_PARAMS, "params.cursor is not valid for this list; start again without one")
    return start


def _needed_length(message: ClientMessage) -> int:
    """Returns how many entries of a list are needed for the page of `params.cursor`, and to know whether another page follows."""
    return (_cursor_number(message) or 0) + PAGE + 1


def _cursor_number(message: ClientMessage) -> int | None:
    """Returns the number in `params.cursor`: 0 for one that is not valid, None without one."""
    cursor = message.params.get("cursor") if isinstance(message.params, dict) else None
    if cursor is None:
        return None
    number = cursor.removeprefix(CURSOR) if isinstance(cursor, str) and cursor.startswith(CURSOR) else ""
    return int(number) if number.isascii() and number.isdigit() and len(number) < 9 else 0
