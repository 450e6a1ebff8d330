"""The A2A card of an MCP server: its public card says how to call a tool; the card for a caller has each tool as a skill."""

from dataclasses import replace
from typing import Any

from registry.cards.card import AgentCard, Registration, Skill, strip_hidden

HOW_TO_CALL = 'Calls one tool. Send one data part {"tool": "name", "arguments": {…}}, or one text: tool: name {…}'
MODES = ("application/json", "text/plain")


def with_card(server: Registration, with_tools: bool = False) -> Registration:
    """The server with an A2A card. `with_tools` lists its tools, which no public card may name."""
    skills = (
        [_skill(tool.name, tool.definition) for tool in server.tools] if with_tools else [Skill("call-tool", "Call a tool", HOW_TO_CALL)]
    )
    card = AgentCard(
        name=server.name,
        description=f"The MCP server {server.name}. {HOW_TO_CALL}",
        version="1.0.0",
        interfaces=(),
        skills=tuple(skills),
        streaming=False,
        push_notifications=False,
        input_modes=MODES,
        output_modes=MODES,
    )
    return replace(server, card=card)


def _skill(name: str, definition: Any) -> Skill:
    title, description = definition.get("title"), definition.get("description")
    return Skill(
        name, strip_hidden(title) if isinstance(title, str) and title else name, strip_hidden(description) if description else "", ("tool",)
    )
