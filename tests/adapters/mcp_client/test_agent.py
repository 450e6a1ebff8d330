"""How a message names a tool of a server that is called as an agent."""

from typing import Any

import pytest

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.mcp_client.agent import NAME_MAX, read_invocation
from adapters.task import Message, Part, Role


def message(text: str) -> Message:
    return Message("m1", Role.USER, (Part(text=text),))


TEXTS: dict[str, tuple[str, dict[str, Any]]] = {
    "tool: check": ("check", {}),
    "  tool:check\n": ("check", {}),
    'tool: check {"sku": "a b"}': ("check", {"sku": "a b"}),
    'tool: check{"sku":"{}"}': ("check", {"sku": "{}"}),
    "tool:\ncheck\t{\n}\n": ("check", {}),
    f"tool: {'x' * NAME_MAX} {{}}": ("x" * NAME_MAX, {}),
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_names_a_tool_and_its_arguments(text: str) -> None:
    asked = read_invocation(message(text))
    assert (asked.tool, asked.arguments) == TEXTS[text]


REFUSED = [
    "",
    "check",
    "tool",
    "tool:",
    "tool: {}",
    "a tool: check",
    "tool: check more",
    "tool: check []",
    "tool: check {",
    "tool: check {} more",
]


@pytest.mark.parametrize("text", [*REFUSED, f"tool: {'x' * (NAME_MAX + 1)}", "tool: check " + " " * 60_000 + "x"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(BadMessage):
        read_invocation(message(text))
