"""MCP servers that are commands of the operator's configuration: one process each for everybody, and some of their own for who is asked."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from adapters.contract import Call, NotSent, Unreachable, UpstreamFault
from adapters.mcp_client.duplex.channel import Duplex
from adapters.mcp_client.duplex.listening import listen
from adapters.mcp_client.duplex.process import START_SECONDS, Command, Owner, Process
from adapters.mcp_client.exchange.http import Exchange
from adapters.mcp_client.exchange.rounds import Again, WrongEra, answer_of, settled
from adapters.mcp_client.legacy.requests import SUBSCRIBE, UNSUBSCRIBE, session_key
from adapters.mcp_client.listening import Subscribed
from adapters.mcp_client.lists import Listed, list_all
from adapters.mcp_client.probe import DECLARED, Probe, declaring, probed
from adapters.mcp_client.session_room import ANYBODY, retiring
from adapters.mcp_client.watching import Changed, watch_duplex
from adapters.mcp_client.wire.eras import wishes
from adapters.mcp_client.wire.messages import McpAnswer, McpRequest, Said
from adapters.mcp_client.wire.peer import Listener, Listening, Peer

__all__ = ["Command", "StdioServers"]

OWN_MAX: Final = 16  # processes of one command besides the one for everybody
OWN_SHARE: Final = 3  # times as many as are free that one person may have of them
IDLE_SECONDS: Final = 300.0  # until one of those is ended
UNIFORM_SECONDS: Final = 3600.0  # for which a command that shows every client the same is believed to
LOOKER: Final = "look"  # owns the process that lists what only clients see that can do more; no person has this name
TOOL_SECONDS: Final = 60.0  # that a server has for a call where neither its registration nor the settings say
SILENT_SHARE: Final = 0.9  # of those seconds in which a hung process was silent: the call has waited elsewhere too, such as for its ruling
_ASKABLE: Final = frozenset({"elicitation", "sampling", "roots"})


class _Whose(NamedTuple):
    """A process of the command `name`; of everybody when `owner` is empty."""

    name: str
    owner: str = ""
    front: str = ""
    capabilities: str = "{}"


class StdioServers:
    """Speaks to the commands of the configuration file, by the names of their registrations; `clock` counts the deadlines' seconds.

    A process serves all users: whoever configures a command decides that its tools are the same for everybody. On such a channel nothing
    tells for whom a question or a log message is, so a client that can be asked gets a process of its own, as it would without a gateway.
    A modern client is asked by results, and needs none with a modern command. A command of both eras is spoken to in the client's, since it
    asks one of the older era while it works, which the other has no way for; with no process left for that, in its own.
    """

    def __init__(self, commands: Mapping[str, Command], clock: Callable[[], float], timeout: float = TOOL_SECONDS) -> None:
        """`timeout`: seconds that a server has for a call where its registration has no `timeout`."""
        self._clock = clock
        self._timeout = timeout
        self._commands = commands
        self._processes: dict[_Whose, Process] = {}
        self._subscribed = Subscribed()
        self._modern: set[str] = set()  # commands whose questions come in results, so that one process is enough
        self._modern_only: set[str] = set()  # those of them that know no `initialize`
        self._uniform: dict[str, float] = {}  # older commands that show every client the same, and until when that is believed

    async def probe(self, name: str) -> Probe:
        """Era, version and what it lists for a client that can do everything. Raises UpstreamFault."""
        duplex = await self._duplex(_Whose(name), START_SECONDS)
        listed = await _listed(duplex)
        if duplex.modern:
            return probed("modern", duplex.version, listed, duplex.instructions)
        if self._uniform.get(name, 0.0) <= self._clock():
            looker = _Whose(name, LOOKER, "", DECLARED)
            shown = await _listed(await self._duplex(looker, START_SECONDS))
            if shown == listed:
                self._uniform[name] = self._clock() + UNIFORM_SECONDS
                await self._stop([looker])
            listed = shown
        return probed("legacy", duplex.version, listed, duplex.instructions)

    def said(self, name: str) -> list[str]:
        """The last lines that the processes of a command wrote to their standard error, without what its environment was given."""
        return [line for whose, process in self._processes.items() if whose.name == name for line in process.said]

    async def call(self, call: Call, request: McpRequest) -> McpAnswer:
        """As McpPool.call. A process that was silent for as long as its server may take is hung, and ended."""
        whose = await self._whose(call, request.peer, request.session, bool(wishes(request).level))
        duplex = await self._duplex(whose, call.deadline - self._clock())
        if request.peer is not None and not request.modern and (answer := self._of_the_session(call, request, duplex)):
            return answer
        began, heard = self._clock(), duplex.heard
        try:
            return await self._answer(call, request, duplex)
        except (Unreachable, asyncio.CancelledError):
            silent = self._clock() - began
            process, seconds = self._processes.get(whose), float(call.target.upstream.get("timeout", self._timeout))
            if process is not None and duplex.heard == heard and silent >= SILENT_SHARE * seconds:
                process.end_hung(duplex, silent)
            raise

    async def _answer(self, call: Call, request: McpRequest, duplex: Duplex) -> McpAnswer:
        async def once(again: Again) -> Exchange:
            return await duplex.call(request, again.answers, call.deadline + again.thought - self._clock())

        try:
            if request.peer is None:
                return await answer_of(request, await once(Again()), duplex.modern)
            return await settled(request, request.peer, duplex.modern, once, self._clock)
        except WrongEra as error:
            raise UpstreamFault("The server's answer is not one of its protocol", str(error)) from error

    async def listen(self, call: Call, wanted: Listening, listener: Listener, session: str = "") -> None:
        """As McpTools.listen; ends with UpstreamFault when the process does."""
        whose = await self._whose(call, listener, session, False)
        duplex = await self._duplex(whose, call.deadline - self._clock())
        more = self._subscribed.of(call, session) if session else None
        heard = None if whose.owner and session else (lambda: frozenset(more.uris) if more else frozenset())
        await listen(duplex, wanted, listener, heard, call.deadline - self._clock())

    async def watch(self, name: str, changed: Changed) -> None:
        """As McpTools.watch."""
        await watch_duplex(await self._duplex(_Whose(name), START_SECONDS), changed)

    def tell(self, owner: str, session: str, said: Said) -> None:
        """As McpTools.tell."""
        for whose, process in self._processes.items():
            duplex = process.channel if (whose.owner, whose.front) == (owner, session) else None
            if duplex is not None and said.meant_for(duplex.expected):
                duplex.tell(said.body)

    async def leave(self, owner: str, session: str) -> None:
        """Ends the processes that a client's session had."""
        self._subscribed.leave(owner, session)
        await self._stop([whose for whose in self._processes if whose.owner == owner and whose.front == session])

    async def sweep(self) -> None:
        """Ends the processes of those who have not used them for a while."""
        before = self._clock() - IDLE_SECONDS
        await self._stop([whose for whose, one in self._processes.items() if whose.owner and not one.busy and one.used <= before])

    async def close(self) -> None:
        await self._stop(list(self._processes))

    def _of_the_session(self, call: Call, request: McpRequest, duplex: Duplex) -> McpAnswer | None:
        """What a session of the initialize era keeps, where a modern server keeps none."""
        if request.method in (SUBSCRIBE, UNSUBSCRIBE):
            self._subscribed.change(call, request)
        kept = (SUBSCRIBE, UNSUBSCRIBE, "logging/setLevel")
        return McpAnswer(b"{}") if duplex.modern and request.method in kept else None

    async def _whose(self, call: Call, peer: Peer | None, front: str, logs: bool) -> _Whose:
        """Whose process serves a client. What era a command is of is learned from the process for everybody."""
        everybody = _Whose(call.target.name)
        if peer is None or not (logs or _ASKABLE & peer.capabilities.keys()):
            return everybody
        if not logs:
            if call.target.name not in self._modern:
                await self._duplex(everybody, call.deadline - self._clock())
            if call.target.name in self._modern and (not front or call.target.name in self._modern_only):
                return everybody
        key = session_key(call, peer, front)
        mine = _Whose(call.target.name, key.owner, key.front, key.capabilities)
        crowded = call.target.name in self._modern and mine not in self._processes and not self._has_room(mine)
        return everybody if crowded and not logs else mine

    def _has_room(self, whose: _Whose) -> bool:
        """Whether one more process may be started, after one that is idle has ended if need be."""
        owners, idle = self._own(whose)
        retired = retiring(owners, whose.owner, OWN_MAX, OWN_SHARE)
        return retired is None or any(retired in (ANYBODY, other.owner) for other in idle)

    def _own(self, whose: _Whose) -> tuple[list[str], list[_Whose]]:
        """The owners of the command's processes besides the one for everybody, and those processes that are idle."""
        own = [other for other in self._processes if other.owner and other.name == whose.name]
        return [other.owner for other in own], [other for other in own if not self._processes[other].busy]

    async def _duplex(self, whose: _Whose, seconds: float) -> Duplex:
        process = self._processes.get(whose)
        if process is None:
            command = self._commands.get(whose.name)
            if command is None:
                raise UpstreamFault("No command is configured for this server", whose.name)
            await self._make_room(whose)
            process = Process(whose.name, command, self._clock, Owner(whose.capabilities, bool(whose.front)) if whose.owner else None)
            process = self._processes.setdefault(whose, process)
        duplex = await process.duplex(seconds)
        if duplex.modern:
            self._modern.add(whose.name)
            if whose.front:
                self._modern_only.add(whose.name)
        return duplex

    async def _make_room(self, whose: _Whose) -> None:
        """Raises NotSent."""
        if not whose.owner:
            return
        owners, idle = self._own(whose)
        retired = retiring(owners, whose.owner, OWN_MAX, OWN_SHARE)
        if retired is None:
            return
        ending = [other for other in idle if retired in (ANYBODY, other.owner)]
        if not ending:
            raise NotSent("Too many processes of the server's command are busy", f"{OWN_MAX}")
        await self._stop([min(ending, key=lambda other: self._processes[other].used)])

    async def _stop(self, which: list[_Whose]) -> None:
        ending = [self._processes.pop(whose) for whose in which if whose in self._processes]
        await asyncio.gather(*(process.stop() for process in ending))


async def _listed(duplex: Duplex) -> Listed:
    async def page(method: str, params: dict[str, Any]) -> Exchange:
        return await duplex.request(method, declaring(params) if duplex.modern else params, START_SECONDS)

    return await list_all(page)
