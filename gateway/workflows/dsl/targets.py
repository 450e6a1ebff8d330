"""Targets of calls: agents and servers of the registry, as documents name them."""

from typing import Final

from gateway.workflows.dsl.document import CallA2a, CallFunction, TaskBase

AGENTS: Final = "interlock://agents/"
TOOLS: Final = "interlock://tools/"


def agent_at(uri: str) -> str | None:
    """The name of the agent that `interlock://agents/<name>` stands for, or None."""
    return _name_after(AGENTS, uri)


def server_at(uri: str) -> str | None:
    """The name of the server that `interlock://tools/<name>` stands for, or None."""
    return _name_after(TOOLS, uri)


def agent_of(task: TaskBase) -> str | None:
    """The name of the agent that a step asks, where it is a plain text."""
    match task:
        case CallA2a(with_=call):
            return agent_at(call.uri)
        case CallFunction(call="gateway.agent", with_={"agent": str(name)}) if "${" not in name:
            return name
    return None


def _name_after(prefix: str, uri: str) -> str | None:
    name = uri.removeprefix(prefix)
    return name if uri.startswith(prefix) and name and "/" not in name else None


def split_tool(name: str) -> tuple[str, str] | None:
    """Server and tool of `server.tool`, or None. Names of servers have no dot; names of tools may."""
    server, dot, tool = name.partition(".")
    return (server, tool) if dot and server and tool else None
