"""Open prompts: shown, kept beside the agent's own ids, and answered by what fits."""

import json
from typing import Any

import msgspec
import pytest

from adapters.contract import Prompt, PromptKind, VendorRef
from adapters.task import Message, Part, Role
from gateway.tasks.contracts.json_schema import BadSchema, problem_of
from gateway.tasks.contracts.prompts import BadPromptAnswer, find_answers, message_with_prompts, open_prompts, with_prompts

FLAG = Prompt("p", "Sure?", schema={"type": "boolean"}, kind=PromptKind.APPROVAL, token="secret-token")


def message(*parts: Part) -> Message:
    return Message("m", Role.USER, parts)


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (None, "anything", "anything"),
        ({"type": "string"}, "yes", "yes"),
        ({"type": "boolean"}, "Yes.", True),
        ({"type": "boolean"}, "deny", False),
        ({"type": "integer"}, "42", 42),
        ({"enum": ["a", "b"]}, "b", "b"),
        ({"type": "object", "required": ["x"]}, '{"x": 1}', {"x": 1}),
    ],
)
def test_a_text_is_read_as_the_prompt_takes_it(schema: Any, text: str, value: Any) -> None:
    (answer,) = find_answers([Prompt("p", schema=schema)], message(Part(text=text)))
    assert answer.value == value and type(answer.value) is type(value)


@pytest.mark.parametrize(
    ("schema", "part"),
    [({"type": "boolean"}, Part(text="perhaps")), ({"type": "integer"}, Part(text="1.5")), ({"enum": ["a"]}, Part(data="c"))],
)
def test_what_does_not_fit_is_refused_without_repeating_it(schema: Any, part: Part) -> None:
    with pytest.raises(BadPromptAnswer) as refused:
        find_answers([Prompt("p", schema=schema)], message(part))
    assert "perhaps" not in str(refused.value) and "rule `" in str(refused.value)


def test_the_token_of_a_prompt_is_kept_and_shown_to_nobody() -> None:
    kept = with_prompts(msgspec.json.encode(VendorRef("c", "t", {"cursor": 1})).decode(), (FLAG,))
    assert open_prompts(kept) == (FLAG,)
    assert json.loads(kept)["extra"] == {"cursor": 1}
    assert "secret-token" not in str(message_with_prompts(None, (FLAG,), "m"))
    assert open_prompts(with_prompts(kept, ())) == ()


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://a.example/schema.json"},  # nothing is fetched
        {"$ref": "#"},
        {"type": "no-such-type"},
        {"$defs": {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(30)} | {"30": True}, "$ref": "#/$defs/0"},
    ],
    ids=["elsewhere", "circle", "wrong", "doubling"],
)
def test_a_strangers_schema_costs_little_and_leads_nowhere(schema: Any) -> None:
    with pytest.raises(BadSchema):
        problem_of(schema, "x")
    assert find_answers([Prompt("p", schema=schema)], message(Part(text="x")))[0].value == "x"  # the agent's to judge


def test_a_strangers_pattern_is_not_run() -> None:
    assert problem_of({"type": "string", "pattern": "(a+)+$"}, "a" * 5000 + "!") == ""
    assert problem_of({"type": "string", "maxLength": 2}, "abc") == "$ breaks the rule `maxLength` (2)"
