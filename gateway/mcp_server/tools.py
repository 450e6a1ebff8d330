"""The tools a caller has: those of MCP servers, and agents. One rule decides what is listed and what can be called."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import UnknownTool
from gateway.mcp_server.mirrored import Mirrored, mirrored
from gateway.mcp_server.names import exposed, owner_of
from gateway.mcp_server.offers import Offers
from gateway.mcp_server.uris import document_outward
from policies.authority import Caller
from policies.grant import calling, invoking
from registry.card import Family, Registration
from registry.store import UnknownName

KNOWN_MAX = 10_000  # registrations whose names are kept ready
AGENT_INPUT = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "What the agent is asked, in plain words."},
        "context_id": {"type": "string", "description": "The conversation to go on with; leave out to begin one."},
    },
    "required": ["message"],
    "additionalProperties": False,
}
AGENT_OUTPUT = {
    "type": "object",
    "properties": {
        "task_id": {"type": "string"},
        "context_id": {"type": "string"},
        "state": {"type": "string"},
        "text": {"type": "string"},
    },
    "required": ["task_id", "context_id", "state", "text"],
}


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool of an MCP server under its own name. `marks`: its arguments that travel as headers too."""

    server: str
    tool: str
    marks: tuple[Mirrored, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentTool:
    """An agent, or one of its skills."""

    agent: str
    skill: str = ""


@dataclass(frozen=True, slots=True)
class _Named:
    """The tools of one registration by what they are called on /mcp, and those of a server by their own names too."""

    exposed: Mapping[str, ServerTool | AgentTool]
    own: Mapping[str, ServerTool]


class Tools:
    """Lists and resolves. With a `server` only that server's tools, under their own names."""

    def __init__(self, offers: Offers, separator: str) -> None:
        self._offers = offers
        self._separator = separator
        self._known: dict[tuple[str, str], tuple[Registration, _Named]] = {}

    def listed(self, caller: Caller, server: str) -> list[dict[str, Any]]:
        """Definitions of every tool the caller may call, in a stable order. Raises UnknownName."""
        if server:
            found = self._offers.known(caller, server)
            return [dict(tool.definition) for tool in found.tools if self._may_call(caller, found, tool.name)]
        return [definition for entry in self._offers.everything(caller) for definition in self._definitions(caller, entry)]

    def check(self, caller: Caller, server: str) -> None:
        """Raises UnknownName for a server that is not there, or that the caller may not know of."""
        self._offers.known(caller, server)

    def sees(self, caller: Caller, tool: AgentTool | ServerTool) -> bool:
        """Whether the caller may know of the agent, or of the server."""
        if isinstance(tool, AgentTool):
            return self._offers.sees(caller, invoking(tool.agent))
        return self._offers.sees(caller, calling(tool.server, tool.tool))

    def resolve(self, caller: Caller, server: str, name: str) -> ServerTool | AgentTool:
        """What a name means. Raises UnknownTool, UnknownName; whether it may be called is the broker's question."""
        found = self._own(caller, server, name) if server else self._exposed(caller, name)
        if found is None:
            raise UnknownTool
        return found

    def _own(self, caller: Caller, server: str, name: str) -> ServerTool | None:
        return self._names(self._offers.server(caller, server)).own.get(name)

    def _exposed(self, caller: Caller, name: str) -> ServerTool | AgentTool | None:
        try:
            entry = self._offers.entry(caller, owner_of(name, self._separator))
        except UnknownName:
            return None
        return self._names(entry).exposed.get(name)

    def _names(self, entry: Registration) -> _Named:
        key = (entry.tenant, entry.name)
        known = self._known.get(key)
        if known is None or known[0] is not entry:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            known = self._known[key] = (entry, _named(entry, self._separator))
        return known[1]

    def _definitions(self, caller: Caller, entry: Registration) -> Iterator[dict[str, Any]]:
        if entry.family is Family.SERVER:
            definitions = {tool.name: tool.definition for tool in entry.tools}
            for name, found in self._names(entry).exposed.items():
                if isinstance(found, ServerTool) and self._may_call(caller, entry, found.tool):
                    yield {**document_outward(entry.name, definitions[found.tool]), "name": name}
            return
        if entry.card is None or not self._may_invoke(caller, entry.name, ""):
            return
        skills = {skill.id: skill for skill in entry.card.skills}
        for name, found in self._names(entry).exposed.items():
            if isinstance(found, AgentTool) and self._may_invoke(caller, entry.name, found.skill):
                offer = skills[found.skill] if found.skill else entry.card
                yield _agent_tool(name, offer.name, offer.description)

    def _may_call(self, caller: Caller, server: Registration, tool: str) -> bool:
        return self._offers.may(caller, server, calling(server.name, tool))

    def _may_invoke(self, caller: Caller, agent: str, skill: str) -> bool:
        return self._offers.may_invoke(caller, agent, skill)


def _agent_tool(name: str, title: str, description: str) -> dict[str, Any]:
    return {"name": name, "title": title, "description": description, "inputSchema": AGENT_INPUT, "outputSchema": AGENT_OUTPUT}


def _named(entry: Registration, separator: str) -> _Named:
    if entry.family is Family.AGENT:
        skills = exposed(entry.name, [skill.id for skill in entry.card.skills] if entry.card else [], separator)
        return _Named({entry.name: AgentTool(entry.name), **{name: AgentTool(entry.name, skill) for name, skill in skills.items()}}, {})
    own = {tool.name: ServerTool(entry.name, tool.name, tuple(mirrored(tool.definition.get("inputSchema")))) for tool in entry.tools}
    return _Named({name: own[inner] for name, inner in exposed(entry.name, own, separator).items()}, own)
