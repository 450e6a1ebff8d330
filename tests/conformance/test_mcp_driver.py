"""What the client does that the MCP kit tries: each scenario's calls, and nothing that the kit did not ask for."""

from typing import Any

import pytest
from msgspec import Raw

from adapters.mcp_client.probe import Probe
from tests.conformance.mcp_consents import terms
from tests.conformance.mcp_driver import Person, wishes

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "required": ["a"]}
FOUND = Probe("modern", "2026-07-28", [{"name": "first", "inputSchema": SCHEMA}, {"name": "second", "inputSchema": {}}])


@pytest.mark.parametrize(
    ("scenario", "context", "wished"),
    [
        ("initialize", {}, []),
        ("tools_call", {}, [("add_numbers", {"a": 5, "b": 3})]),
        ("http-invalid-tool-headers", {}, [("first", {"a": 0}), ("second", {})]),
        (
            "http-custom-headers",
            {"toolCalls": [{"name": "second", "arguments": {"x": None}}, {"name": "dropped"}]},
            [("second", {"x": None})],
        ),
        ("auth/basic-cimd", {}, [("first", {})]),
    ],
)
def test_each_scenario_has_its_calls(scenario: str, context: dict[str, Any], wished: list[Any]) -> None:
    assert list(wishes(scenario, FOUND, context)) == wished


@pytest.mark.parametrize(
    ("scenario", "context", "auth"),
    [
        ("auth/basic-cimd", {}, {}),
        ("auth/pre-registration", {"client_id": "c", "client_secret": "s", "issuer": "i"}, {"client_id": "c", "client_secret": "s"}),
        ("auth/client-credentials-jwt", {"client_id": "c", "private_key_pem": "p"}, {"account": "service", "client_id": "c"}),
    ],
)
def test_an_operator_sets_up_what_the_kit_says_and_no_more(scenario: str, context: dict[str, Any], auth: dict[str, Any]) -> None:
    assert terms(scenario, context) == auth


async def test_the_person_accepts_with_the_defaults_of_the_question() -> None:
    asked = b'{"requestedSchema":{"properties":{"a":{"type":"integer","default":7},"b":{"type":"string"}}}}'
    assert bytes(await Person().ask("elicitation/create", Raw(asked))) == b'{"action":"accept","content":{"a":7,"b":"x"}}'
