"""Open prompts as forms of MCP elicitation."""

from typing import Any

import pytest

from adapters.contract import Prompt, PromptKind
from adapters.task import Part
from gateway.ingress.mcp_server.elicitation.forms import ANSWER_FIELD, answer_parts, form_of

NULLABLE = {"type": ["string", "null"]}
NESTED = {"type": "object", "properties": {"name": NULLABLE}}
FLAT = {"type": "object", "properties": {"name": {"type": "string"}, "count": {"type": "integer"}}}


def prompt(schema: Any, kind: PromptKind = PromptKind.INPUT) -> Prompt:
    return Prompt("p-1", "Which?", schema=schema, kind=kind)


def accepted(content: Any) -> dict[str, Any]:
    return {"action": "accept", "content": content}


def value_of(schema: Any, content: Any) -> Any:
    parts = answer_parts([prompt(schema)], [accepted(content)])
    assert parts is not None
    assert isinstance(parts[0].data, dict) and parts[0].data["promptId"] == "p-1"
    return parts[0].data["value"]


def test_a_form_asks_for_an_object_of_plain_members_as_it_is() -> None:
    assert form_of(prompt(FLAT)) == {"message": "Which?", "requestedSchema": FLAT}
    assert value_of(FLAT, {"name": "Ada", "count": 2}) == {"name": "Ada", "count": 2}


@pytest.mark.parametrize("schema", [{"type": "integer"}, {"type": "boolean"}, {"type": "string", "enum": ["a", "b"]}])
def test_a_plain_value_is_one_field_of_the_form(schema: Any) -> None:
    assert form_of(prompt(schema))["requestedSchema"] == {
        "type": "object",
        "properties": {ANSWER_FIELD: schema},
        "required": [ANSWER_FIELD],
    }
    assert value_of(schema, {ANSWER_FIELD: "7"}) == "7"  # as it came: whether it fits is asked later


@pytest.mark.parametrize("schema", [NULLABLE, NESTED, {"type": "array"}, {"type": {"of": "string"}}, {"type": [["string"]]}, {}])
def test_whatever_else_a_schema_says_is_asked_for_as_the_text_of_its_json(schema: Any) -> None:
    field = form_of(prompt(schema))["requestedSchema"]["properties"][ANSWER_FIELD]
    assert field["type"] == "string" and field["description"].startswith("JSON that fits {")
    assert value_of(schema, {ANSWER_FIELD: '{"name": null}'}) == {"name": None}
    assert value_of(schema, {ANSWER_FIELD: "not { json"}) == "not { json"
    assert value_of(schema, {ANSWER_FIELD: "[" * 20_000}) == "[" * 20_000


def test_a_prompt_without_a_schema_is_answered_by_words_that_nobody_reads_as_json() -> None:
    assert value_of(None, {ANSWER_FIELD: "7"}) == "7"


def test_declining_answers_no_where_the_prompt_accepts_it_else_gives_no_answer() -> None:
    approval = prompt({"type": "boolean"}, PromptKind.APPROVAL)
    no = Part(data={"promptId": "p-1", "value": False}, media_type="application/json")
    assert answer_parts([approval], [{"action": "decline"}]) == (no,)
    assert answer_parts([approval], [{"action": "cancel"}]) is None
    assert answer_parts([approval, prompt(FLAT)], [{"action": "decline"}, {"action": "decline"}]) is None
