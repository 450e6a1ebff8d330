"""The tools a caller has: those of MCP servers, and agents. One rule decides what is listed and what can be called."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import UnknownTool
from gateway.mcp_server.names import exposed, owner_of
from policies.authority import Authority, Caller
from policies.grant import Act
from registry.card import Family, Registration, Status
from registry.store import Registry, UnknownName

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
    """A tool of an MCP server under its own name."""

    server: str
    tool: str


@dataclass(frozen=True, slots=True)
class AgentTool:
    """An agent, or one of its skills."""

    agent: str
    skill: str = ""


class Tools:
    """Lists and resolves. With a `server` only that server's tools, under their own names."""

    def __init__(self, registry: Registry, authority: Authority, separator: str) -> None:
        self._registry = registry
        self._authority = authority
        self._separator = separator
        self._known: dict[tuple[str, str], tuple[Registration, Mapping[str, str]]] = {}

    def listed(self, caller: Caller, server: str) -> list[dict[str, Any]]:
        """Definitions of every tool the caller may call, in a stable order."""
        if server:
            found = self._server(caller, server)
            return [dict(tool.definition) for tool in found.tools if self._may_call(caller, found.name, tool.name)]
        entries = self._registry.list(caller.principal.tenant)
        active = (entry for entry in sorted(entries, key=lambda entry: entry.name) if entry.status is Status.ACTIVE)
        return [definition for entry in active for definition in self._definitions(caller, entry)]

    def resolve(self, caller: Caller, server: str, name: str) -> ServerTool | AgentTool:
        """What a name means. Raises UnknownTool; whether it may be called is the broker's question."""
        tenant = caller.principal.tenant
        if server:
            return self._tool(self._server(caller, server), name)
        try:
            entry = self._registry.find(tenant, owner_of(name, self._separator))
        except UnknownName:
            raise UnknownTool from None
        if entry.status is not Status.ACTIVE:
            raise UnknownTool
        if entry.family is Family.AGENT and name == entry.name:
            return AgentTool(entry.name)
        inner = self._names(entry).get(name)
        if inner is None:
            raise UnknownTool
        return AgentTool(entry.name, inner) if entry.family is Family.AGENT else ServerTool(entry.name, inner)

    def _server(self, caller: Caller, name: str) -> Registration:
        found = self._registry.find(caller.principal.tenant, name)
        if found.family is not Family.SERVER or found.status is not Status.ACTIVE:
            raise UnknownName(name)
        return found

    def _tool(self, entry: Registration, name: str) -> ServerTool:
        if not any(tool.name == name for tool in entry.tools):
            raise UnknownTool
        return ServerTool(entry.name, name)

    def _names(self, entry: Registration) -> Mapping[str, str]:
        key = (entry.tenant, entry.name)
        known = self._known.get(key)
        if known is None or known[0] is not entry:
            skills = [skill.id for skill in entry.card.skills] if entry.card else []
            inner = skills if entry.family is Family.AGENT else [tool.name for tool in entry.tools]
            known = self._known[key] = (entry, exposed(entry.name, inner, self._separator))
        return known[1]

    def _definitions(self, caller: Caller, entry: Registration) -> Iterator[dict[str, Any]]:
        names = self._names(entry)
        if entry.family is Family.SERVER:
            definitions = {tool.name: tool.definition for tool in entry.tools}
            for name, inner in names.items():
                if self._may_call(caller, entry.name, inner):
                    yield {**definitions[inner], "name": name}
            return
        if entry.card is None or not self._may_invoke(caller, entry.name, ""):
            return
        yield _agent_tool(entry.name, entry.card.name, entry.card.description)
        skills = {skill.id: skill for skill in entry.card.skills}
        for name, inner in names.items():
            if self._may_invoke(caller, entry.name, inner):
                yield _agent_tool(name, skills[inner].name, skills[inner].description)

    def _may_call(self, caller: Caller, server: str, tool: str) -> bool:
        name = f"{server}.{tool}"
        return self._authority.may(caller, Act("callTool", "Tool", name, f"tool:{name}", server))

    def _may_invoke(self, caller: Caller, agent: str, skill: str) -> bool:
        name = f"{agent}/{skill}" if skill else agent
        return self._authority.may(caller, Act("invokeAgent", "Agent", name, f"agent:{name}", agent))


def _agent_tool(name: str, title: str, description: str) -> dict[str, Any]:
    return {"name": name, "title": title, "description": description, "inputSchema": AGENT_INPUT, "outputSchema": AGENT_OUTPUT}
