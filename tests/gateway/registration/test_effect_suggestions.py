"""Suggestions of effects from names and schemas of tools."""

from typing import Any

import pytest

from gateway.registration.effect_suggestions import suggest_effects
from registry.cards.card import McpTool
from registry.cards.effects import parse_effects


def tool(name: str, *arguments: str, **definition: Any) -> McpTool:
    schema = {"type": "object", "properties": {key: {"type": "string"} for key in arguments}, "required": list(arguments[:1])}
    return McpTool(name, {"name": name, "inputSchema": schema, **definition})


@pytest.mark.parametrize(
    ("name", "argument", "effect", "subject"),
    [
        ("send_email", "customer_id", "outbound-email", "customer:{arguments.customer_id}"),
        ("refundOrder", "orderId", "refund", "order:{arguments.orderId}"),
        ("resolve-case", "case_number", "close", "ticket:{arguments.case_number}"),
        ("notify", "client_id", "outbound-message", "customer:{arguments.client_id}"),
    ],
)
def test_a_tool_that_names_whom_it_acts_on_gets_a_suggestion(name: str, argument: str, effect: str, subject: str) -> None:
    found = suggest_effects([tool(name, argument, description="Does it.\nMore.")])
    assert found == {name: {"subject": subject, "effect": effect, "purpose": "Does it."}}
    assert parse_effects(found)[name].subject_of({argument: "7"}).endswith(":7")


@pytest.mark.parametrize(
    "one",
    [
        tool("send_email", "customer_id", annotations={"readOnlyHint": True}),
        tool("send_email", "text"),
        tool("list_orders", "order_id"),
        McpTool("send_email", {"name": "send_email"}),
        McpTool("send_email", {"name": "send_email", "inputSchema": {"properties": []}}),
    ],
)
def test_a_tool_that_reads_or_names_nobody_gets_none(one: McpTool) -> None:
    assert suggest_effects([one]) == {}
