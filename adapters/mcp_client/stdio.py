"""MCP servers that are commands of the operator's configuration: one process each for everybody, and some of their own for who is asked."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from adapters.contract import Call, NotSent, Unreachable, UpstreamFault
from adapters.mcp_client.duplex.channel import DuplexChannel
from adapters.mcp_client.duplex.listening import listen
from adapters.mcp_client.duplex.process import START_SECONDS, Command, ProcessOwner, ServerProcess
from adapters.mcp_client.exchange.http import Exchange
from adapters.mcp_client.exchange.rounds import InputRound, WrongEra, client_answer_off_loop, run_rounds
from adapters.mcp_client.legacy.requests import SUBSCRIBE, UNSUBSCRIBE, session_key
from adapters.mcp_client.listening import LegacySubscriptions
from adapters.mcp_client.lists import ServerLists, list_all
from adapters.mcp_client.probe import ALL_CAPABILITIES_JSON, Probe, build_probe, with_all_capabilities
from adapters.mcp_client.session_room import ANY_OWNER, owner_to_evict
from adapters.mcp_client.watching import OnListChanged, watch_duplex
from adapters.mcp_client.wire.eras import parse_wishes
from adapters.mcp_client.wire.messages import ClientNotification, McpAnswer, McpRequest
from adapters.mcp_client.wire.peer import ListenFilter, McpListener, McpPeer

__all__ = ["Command", "StdioServers"]

OWN_PROCESSES_MAX: Final = 16  # processes of one command besides the one for everybody
OWN_SHARE: Final = 3  # times as many as are free that one person may have of them
IDLE_SECONDS: Final = 300.0  # until one of those is ended
UNIFORM_SECONDS: Final = 3600.0  # for which a command that shows every client the same is believed to
PROBE_OWNER: Final = "look"  # owns the process that lists what only clients see that can do more; no person has this name
TOOL_SECONDS: Final = 60.0  # that a server has for a call where neither its registration nor the settings say
FULL_SHARE: Final = 0.9  # of those seconds after which a call counts as unanswered: it has waited elsewhere too, such as for its ruling
PING_SECONDS: Final = 5.0  # that a process has to answer a ping after a call that it left unanswered
_QUESTION_CAPABILITIES: Final = frozenset({"elicitation", "sampling", "roots"})


class _ProcessKey(NamedTuple):
    """A process of the command `name`; of everybody when `owner` is empty."""

    name: str
    owner: str = ""
    client_session: str = ""
    capabilities: str = "{}"


class StdioServers:
    """Speaks to the commands of the configuration file, by the names of their registrations; `clock` counts the deadlines' seconds.

    A process serves all users: whoever configures a command decides that its tools are the same for everybody. On such a channel nothing
    tells for whom a question or a log message is, so a client that can be asked gets a process of its own, as it would without a gateway.
    A modern client is asked by results, and needs none with a modern command. A command of both eras is spoken to in the client's, since it
    asks one of the older era while it works, which the other has no way for; with no process left for that, in its own.
    """

    def __init__(
        self, commands: Mapping[str, Command], clock: Callable[[], float], timeout: float = TOOL_SECONDS, ping_seconds: float = PING_SECONDS
    ) -> None:
        """`timeout`: seconds that a server has for a call where its registration has no `timeout`."""
        self._ping_seconds = ping_seconds
        self._clock = clock
        self._timeout = timeout
        self._commands = commands
        self._processes: dict[_ProcessKey, ServerProcess] = {}
        self._legacy_subscriptions = LegacySubscriptions()
        self._modern_commands: set[str] = set()  # commands whose questions come in results, so that one process is enough
        self._modern_only_commands: set[str] = set()  # those of them that know no `initialize`
        self._uniform_until: dict[str, float] = {}  # older commands that show every client the same, and until when that is believed

    async def probe(self, name: str) -> Probe:
        """Era, version and what it lists for a client that can do everything. Raises UpstreamFault."""
        duplex = await self._channel_for(_ProcessKey(name), START_SECONDS)
        listed = await _list_all_of(duplex)
        if duplex.is_modern:
            return build_probe("modern", duplex.version, listed, duplex.instructions)
        if self._uniform_until.get(name, 0.0) <= self._clock():
            looker = _ProcessKey(name, PROBE_OWNER, "", ALL_CAPABILITIES_JSON)
            shown = await _list_all_of(await self._channel_for(looker, START_SECONDS))
            if shown == listed:
                self._uniform_until[name] = self._clock() + UNIFORM_SECONDS
                await self._stop([looker])
            listed = shown
        return build_probe("legacy", duplex.version, listed, duplex.instructions)

    def error_lines(self, name: str) -> list[str]:
        """The last lines that the processes of a command wrote to their standard error, without what its environment was given."""
        return [line for whose, process in self._processes.items() if whose.name == name for line in process.error_lines]

    async def call(self, call: Call, request: McpRequest) -> McpAnswer:
        """As McpPool.call. A call that is not answered in time fails alone; the process is ended only if it answers no ping either."""
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
        async def call_once(again: InputRound) -> Exchange:
            return await duplex.call(request, again.answers, call.deadline + again.paused_seconds - self._clock())

        try:
            if request.peer is None:
                return await client_answer_off_loop(request, await call_once(InputRound()), duplex.is_modern)
            return await run_rounds(request, request.peer, duplex.is_modern, call_once, self._clock)
        except WrongEra as error:
            raise UpstreamFault("The server's answer is not one of its protocol", str(error)) from error

    async def listen(self, call: Call, wanted: ListenFilter, listener: McpListener, session: str = "") -> None:
        """As McpTools.listen; ends with UpstreamFault when the process does."""
        whose = await self._process_key(call, listener, session, False)
        duplex = await self._channel_for(whose, call.deadline - self._clock())
        more = self._legacy_subscriptions.uris_of(call, session) if session else None
        heard = None if whose.owner and session else (lambda: frozenset(more.uris) if more else frozenset())
        await listen(duplex, wanted, listener, heard, call.deadline - self._clock())

    async def watch(self, name: str, changed: OnListChanged) -> None:
        """As McpTools.watch."""
        await watch_duplex(await self._channel_for(_ProcessKey(name), START_SECONDS), changed)

    def notify(self, owner: str, session: str, notification: ClientNotification) -> None:
        """As McpTools.tell."""
        for whose, process in self._processes.items():
            duplex = process.channel if (whose.owner, whose.client_session) == (owner, session) else None
            if duplex is not None and notification.is_for(duplex.expected_tokens):
                duplex.send_in_background(notification.body)

    async def close_client_session(self, owner: str, session: str) -> None:
        """Ends the processes that a client's session had."""
        self._legacy_subscriptions.remove_session(owner, session)
        await self._stop([whose for whose in self._processes if whose.owner == owner and whose.client_session == session])

    async def sweep(self) -> None:
        """Ends the processes of those who have not used them for a while."""
        before = self._clock() - IDLE_SECONDS
        await self._stop([whose for whose, one in self._processes.items() if whose.owner and not one.is_busy and one.used <= before])

    async def close(self) -> None:
        await self._stop(list(self._processes))

    def _session_answer(self, call: Call, request: McpRequest, channel: DuplexChannel) -> McpAnswer | None:
        """What a session of the initialize era keeps, where a modern server keeps none."""
        if request.method in (SUBSCRIBE, UNSUBSCRIBE):
            self._legacy_subscriptions.record_request(call, request)
        kept = (SUBSCRIBE, UNSUBSCRIBE, "logging/setLevel")
        return McpAnswer(b"{}") if channel.is_modern and request.method in kept else None

    async def _process_key(self, call: Call, peer: McpPeer | None, client_session: str, wants_logs: bool) -> _ProcessKey:
        """Whose process serves a client. What era a command is of is learned from the process for everybody."""
        everybody = _ProcessKey(call.target.name)
        if peer is None or not (wants_logs or _QUESTION_CAPABILITIES & peer.capabilities.keys()):
            return everybody
        if not wants_logs:
            if call.target.name not in self._modern_commands:
                await self._channel_for(everybody, call.deadline - self._clock())
            if call.target.name in self._modern_commands and (not client_session or call.target.name in self._modern_only_commands):
                return everybody
        key = session_key(call, peer, client_session)
        mine = _ProcessKey(call.target.name, key.owner, key.client_session, key.capabilities)
        crowded = call.target.name in self._modern_commands and mine not in self._processes and not self._has_room(mine)
        return everybody if crowded and not wants_logs else mine

    def _has_room(self, key: _ProcessKey) -> bool:
        """Whether one more process may be started, after one that is idle has ended if need be."""
        owners, idle = self._own_processes(key)
        retired = owner_to_evict(owners, key.owner, OWN_PROCESSES_MAX, OWN_SHARE)
        return retired is None or any(retired in (ANY_OWNER, other.owner) for other in idle)

    def _own_processes(self, key: _ProcessKey) -> tuple[list[str], list[_ProcessKey]]:
        """The owners of the command's processes besides the one for everybody, and those processes that are idle."""
        own = [other for other in self._processes if other.owner and other.name == key.name]
        return [other.owner for other in own], [other for other in own if not self._processes[other].is_busy]

    async def _channel_for(self, key: _ProcessKey, seconds: float) -> DuplexChannel:
        process = self._processes.get(key)
        if process is None:
            command = self._commands.get(key.name)
            if command is None:
                raise UpstreamFault("No command is configured for this server", key.name)
            await self._make_room(key)
            process = ServerProcess(
                key.name, command, self._clock, ProcessOwner(key.capabilities, bool(key.client_session)) if key.owner else None
            )
            process = self._processes.setdefault(key, process)
        duplex = await process.open_channel(seconds)
        if duplex.is_modern:
            self._modern_commands.add(key.name)
            if key.client_session:
                self._modern_only_commands.add(key.name)
        return duplex

    async def _make_room(self, key: _ProcessKey) -> None:
        """Raises NotSent."""
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


async def _list_all_of(channel: DuplexChannel) -> ServerLists:
    async def fetch_page(method: str, params: dict[str, Any]) -> Exchange:
        return await channel.request(method, with_all_capabilities(params) if channel.is_modern else params, START_SECONDS)

    return await list_all(fetch_page)
