"""MCP servers that are commands of the configuration: one shared process each, and separate ones for clients that can be asked."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from adapters.contract import Call, NotSent, Unreachable, UpstreamFault
from adapters.mcp_client.duplex.channel import DuplexChannel
from adapters.mcp_client.duplex.listening import listen
from adapters.mcp_client.duplex.process import Command, ProcessOwner, ServerProcess, StartTimeouts
from adapters.mcp_client.exchange.http import Exchange, WrongEra
from adapters.mcp_client.exchange.rounds import InputRound, client_answer_off_loop, run_rounds
from adapters.mcp_client.legacy.requests import SUBSCRIBE, UNSUBSCRIBE, session_key
from adapters.mcp_client.listening import LegacySubscriptions
from adapters.mcp_client.lists import ServerLists, list_all
from adapters.mcp_client.probe import ALL_CAPABILITIES_JSON, Probe, build_probe, with_all_capabilities
from adapters.mcp_client.session_room import ANY_OWNER, owner_to_evict
from adapters.mcp_client.watching import OnListChanged, watch_duplex
from adapters.mcp_client.wire.eras import parse_wishes
from adapters.mcp_client.wire.messages import ClientNotification, McpAnswer, McpRequest
from adapters.mcp_client.wire.peer import ListenFilter, McpListener, McpPeer

__all__ = ["Command", "StartTimeouts", "StdioServers"]

OWN_PROCESSES_MAX: Final = 16  # processes of one command besides the shared one
OWN_SHARE: Final = 3  # a person may have this many times as many as are free
IDLE_SECONDS: Final = 300.0  # after which an idle one of those is ended
UNIFORM_SECONDS: Final = 3600.0  # for which a command is assumed to show every client the same lists
PROBE_OWNER: Final = "look"  # the owner of the process that lists what only clients with more capabilities see; no person has this name
TOOL_SECONDS: Final = 60.0  # the default timeout of a call
FULL_SHARE: Final = 0.9  # of that timeout, after which a call counts as unanswered: the call also waits elsewhere, such as for its ruling
PING_SECONDS: Final = 5.0  # that a process has to answer a ping after a call that it left unanswered
_QUESTION_CAPABILITIES: Final = frozenset({"elicitation", "sampling", "roots"})


class _ProcessKey(NamedTuple):
    """A process of the command `name`; the shared one when `owner` is empty."""

    name: str
    owner: str = ""
    client_session: str = ""
    capabilities: str = "{}"


class StdioServers:
    """Calls the configured commands by the names of their registrations; `clock` counts the seconds of deadlines.

    A process serves all users: the operator decides that a command's tools are the same for every user. Its questions and logs do not name
    a client, so a client that can be asked gets a process of its own. A modern client is asked in results, and needs none with a modern
    command. A command of both eras is called in the client's era, since older clients can only be asked during the call; without a free
    process, in its own.
    """

    def __init__(
        self,
        commands: Mapping[str, Command],
        clock: Callable[[], float],
        timeout: float = TOOL_SECONDS,
        ping_seconds: float = PING_SECONDS,
        *,
        start: StartTimeouts,
    ) -> None:
        """`timeout`: seconds for a call to a server whose registration has no `timeout`."""
        self._ping_seconds = ping_seconds
        self._clock = clock
        self._timeout = timeout
        self._start = start
        self._commands = commands
        self._processes: dict[_ProcessKey, ServerProcess] = {}
        self._legacy_subscriptions = LegacySubscriptions()
        self._modern_commands: set[str] = set()  # commands that ask in results, so that the shared process is enough
        self._modern_only_commands: set[str] = set()  # those of them that do not know `initialize`
        self._uniform_until: dict[str, float] = {}  # until when older commands are assumed to show every client the same

    async def probe(self, name: str) -> Probe:
        """Era, version and lists, as a client with all capabilities sees them. Raises UpstreamFault."""
        seconds = self._start.handshake
        duplex = await self._channel_for(_ProcessKey(name), seconds)
        listed = await _list_all_of(duplex, seconds)
        if duplex.is_modern:
            return build_probe("modern", duplex.version, listed, duplex.instructions)
        if self._uniform_until.get(name, 0.0) <= self._clock():
            looker = _ProcessKey(name, PROBE_OWNER, "", ALL_CAPABILITIES_JSON)
            shown = await _list_all_of(await self._channel_for(looker, seconds), seconds)
            if shown == listed:
                self._uniform_until[name] = self._clock() + UNIFORM_SECONDS
                await self._stop([looker])
            listed = shown
        return build_probe("legacy", duplex.version, listed, duplex.instructions)

    def error_lines(self, name: str) -> list[str]:
        """The last lines of standard error of a command's processes, with values of its environment masked."""
        return [line for whose, process in self._processes.items() if whose.name == name for line in process.error_lines]

    async def call(self, call: Call, request: McpRequest) -> McpAnswer:
        """Sends a request, see McpPool.call. Ends a process that was silent for as long as the call may take."""
        whose = await self._process_key(call, request.peer, request.client_session, bool(parse_wishes(request).log_level))
        duplex = await self._channel_for(whose, call.deadline - self._clock())
        if request.peer is not None and not request.is_modern and (answer := self._session_answer(call, request, duplex)):
            return answer
        began = self._clock()
        try:
            return await self._answer(call, request, duplex)
        except (Unreachable, asyncio.CancelledError):
            process, seconds = self._processes.get(whose), float(call.target.upstream.get("timeout", self._timeout))
            if process is not None and self._clock() - began >= FULL_SHARE * seconds:
                process.check_responsive(duplex, self._ping_seconds)
            raise

    async def _answer(self, call: Call, request: McpRequest, duplex: DuplexChannel) -> McpAnswer:
        async def call_once(round_input: InputRound) -> Exchange:
            return await duplex.call(request, round_input.answers, call.deadline + round_input.paused_seconds - self._clock())

        try:
            if request.peer is None:
                return await client_answer_off_loop(request, await call_once(InputRound()), duplex.is_modern)
            return await run_rounds(request, request.peer, duplex.is_modern, call_once, self._clock)
        except WrongEra as error:
            raise UpstreamFault("The server's answer violates its protocol", str(error)) from error

    async def listen(self, call: Call, wanted: ListenFilter, listener: McpListener, session: str = "") -> None:
        """Listens for changes, see McpTools.listen. Ends with UpstreamFault when the process does."""
        whose = await self._process_key(call, listener, session, False)
        duplex = await self._channel_for(whose, call.deadline - self._clock())
        more = self._legacy_subscriptions.uris_of(call, session) if session else None
        session_uris = None if whose.owner and session else (lambda: frozenset(more.uris) if more else frozenset())
        await listen(duplex, wanted, listener, session_uris, call.deadline - self._clock())

    async def watch(self, name: str, changed: OnListChanged) -> None:
        """Watches lists, see McpTools.watch."""
        await watch_duplex(await self._channel_for(_ProcessKey(name), self._start.handshake), changed)

    def notify(self, owner: str, session: str, notification: ClientNotification) -> None:
        """See McpTools.notify."""
        for whose, process in self._processes.items():
            duplex = process.channel if (whose.owner, whose.client_session) == (owner, session) else None
            if duplex is not None and notification.is_for(duplex.expected_tokens):
                duplex.send_in_background(notification.body)

    async def close_client_session(self, owner: str, session: str) -> None:
        """Ends the processes of a client's session."""
        self._legacy_subscriptions.remove_session(owner, session)
        await self._stop([whose for whose in self._processes if whose.owner == owner and whose.client_session == session])

    async def sweep(self) -> None:
        """Ends separate processes that are idle."""
        idle_since = self._clock() - IDLE_SECONDS
        await self._stop([whose for whose, one in self._processes.items() if whose.owner and not one.is_busy and one.used <= idle_since])

    async def close(self) -> None:
        await self._stop(list(self._processes))

    def _session_answer(self, call: Call, request: McpRequest, channel: DuplexChannel) -> McpAnswer | None:
        """The answer to a request of the legacy era about session state, which a modern server does not have; else None."""
        if request.method in (SUBSCRIBE, UNSUBSCRIBE):
            self._legacy_subscriptions.record_request(call, request)
        answered_methods = (SUBSCRIBE, UNSUBSCRIBE, "logging/setLevel")
        return McpAnswer(b"{}") if channel.is_modern and request.method in answered_methods else None

    async def _process_key(self, call: Call, peer: McpPeer | None, client_session: str, wants_logs: bool) -> _ProcessKey:
        """The process for a client. Starts the shared process first, if the command's era is unknown."""
        shared = _ProcessKey(call.target.name)
        if peer is None or not (wants_logs or _QUESTION_CAPABILITIES & peer.capabilities.keys()):
            return shared
        if not wants_logs:
            if call.target.name not in self._modern_commands:
                await self._channel_for(shared, call.deadline - self._clock())
            if call.target.name in self._modern_commands and (not client_session or call.target.name in self._modern_only_commands):
                return shared
        key = session_key(call, peer, client_session)
        own_key = _ProcessKey(call.target.name, key.owner, key.client_session, key.capabilities)
        crowded = call.target.name in self._modern_commands and own_key not in self._processes and not self._has_room(own_key)
        return shared if crowded and not wants_logs else own_key

    def _has_room(self, key: _ProcessKey) -> bool:
        """Whether one more process can be started, perhaps after an idle one was ended."""
        owners, idle = self._own_processes(key)
        retired = owner_to_evict(owners, key.owner, OWN_PROCESSES_MAX, OWN_SHARE)
        return retired is None or any(retired in (ANY_OWNER, other.owner) for other in idle)

    def _own_processes(self, key: _ProcessKey) -> tuple[list[str], list[_ProcessKey]]:
        """The owners of the command's separate processes, and the idle ones among these."""
        own = [other for other in self._processes if other.owner and other.name == key.name]
        return [other.owner for other in own], [other for other in own if not self._processes[other].is_busy]

    async def _channel_for(self, key: _ProcessKey, seconds: float) -> DuplexChannel:
        process = self._processes.get(key)
        if process is None:
            command = self._commands.get(key.name)
            if command is None:
                raise UpstreamFault("No command is configured for this server", key.name)
            await self._make_room(key)
            owner = ProcessOwner(key.capabilities, bool(key.client_session)) if key.owner else None
            process = ServerProcess(key.name, command, self._clock, owner, self._start)
            process = self._processes.setdefault(key, process)
        duplex = await process.open_channel(seconds)
        if duplex.is_modern:
            self._modern_commands.add(key.name)
            if key.client_session:
                self._modern_only_commands.add(key.name)
        return duplex

    async def _make_room(self, key: _ProcessKey) -> None:
        """Ends an idle process if needed. Raises NotSent where none is idle."""
        if not key.owner:
            return
        owners, idle = self._own_processes(key)
        retired = owner_to_evict(owners, key.owner, OWN_PROCESSES_MAX, OWN_SHARE)
        if retired is None:
            return
        ending = [other for other in idle if retired in (ANY_OWNER, other.owner)]
        if not ending:
            raise NotSent("Too many processes of the server's command are busy", f"{OWN_PROCESSES_MAX}")
        await self._stop([min(ending, key=lambda other: self._processes[other].used)])

    async def _stop(self, keys: list[_ProcessKey]) -> None:
        ending = [self._processes.pop(whose) for whose in keys if whose in self._processes]
        await asyncio.gather(*(process.stop() for process in ending))


async def _list_all_of(channel: DuplexChannel, seconds: float) -> ServerLists:
    async def fetch_page(method: str, params: dict[str, Any]) -> Exchange:
        return await channel.request(method, with_all_capabilities(params) if channel.is_modern else params, seconds)

    return await list_all(fetch_page)
