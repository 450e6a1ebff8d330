"""Instructions that servers give models, for the clients that may use these servers."""

from gateway.ingress.mcp_server.catalogue.visible import VisibleEntries, uses_own_names
from policies.callers import Caller
from registry.cards.card import INSTRUCTIONS

TOTAL_MAX = 16 << 10  # characters, of all servers together


async def instructions_of(visible_entries: VisibleEntries, caller: Caller, server_path: str, separator: str) -> str:
    """Returns the approved instructions of an endpoint's servers, each under the server's name except at its own endpoint.

    A server whose instructions would exceed 16,384 characters in total is left out.
    """
    entry_instructions = [
        (entry.name, str(text))
        for entry in await visible_entries.visible_servers(caller, server_path)
        if (text := entry.facts.get(INSTRUCTIONS))
    ]
    if uses_own_names(server_path):
        return "".join(text for _, text in entry_instructions)
    sections: list[str] = []
    left = TOTAL_MAX
    for name, text in entry_instructions:
        section = f"# {name}\nNames of the server {name} begin with {name}{separator} here.\n{text}"
        if len(section) <= left:
            sections.append(section)
            left -= len(section)
    return "\n\n".join(sections)
