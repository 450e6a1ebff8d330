"""A call whose arguments have other types than the tool declares is refused where a policy reads them: Cedar would not notice."""

from pathlib import Path
from typing import Any

import pytest

from policies.cedar.engine import CedarQuestion, KnownTool, PolicyEngine, Verdict
from policies.delegation.chain import Principal
from policies.delegation.rulings import act_of_calling_tool, act_of_invoking_agent

TEXT = {"type": "string"}
SCHEMA = {
    "type": "object",
    "properties": {"id": TEXT, "n": {"type": "integer"}, "to": {"type": "object", "properties": {"city": TEXT}}, "note": TEXT, "free": {}},
}
ALICE = Principal("acme", "https://idp", "alice")
TOOL = 'action == Action::"shop.pay"'
POLICIES = f"""
@id("all") permit(principal, action, resource);
@id("vault") forbid(principal, {TOOL}, resource) when {{ context.input has id && context.input.id == "vault" }};
@id("n") forbid(principal, {TOOL}, resource) when {{ context.input has n && context.input.n == 13 }};
@id("city") forbid(principal, {TOOL}, resource)
when {{ context.input has to && context.input.to has city && context.input.to.city == "x" }};
@id("free") forbid(principal, {TOOL}, resource) when {{ context.input has free && context.input.free == 1 }};
"""


def ruled(folder: Path, arguments: Any) -> Verdict:
    (folder / "ours.cedar").write_text(POLICIES)
    tools = [KnownTool("other", "shop", "pay", {}), KnownTool("acme", "shop", "pay", SCHEMA)]
    question = CedarQuestion(ALICE, act_of_calling_tool("shop", "pay"), "acme", input=arguments)
    return PolicyEngine({}, folder, lambda: tools).decide(question)


@pytest.mark.parametrize(
    ("arguments", "policy", "problem"),
    [
        ({"id": ["vault"]}, "vault", "argument id: expected string, got array"),
        ({"n": "13"}, "n", "argument n: expected integer, got string"),
        ({"n": 13.5}, "n", "argument n: expected integer, got number"),
        ({"to": {"city": ["x"]}}, "city", "argument to.city: expected string, got array"),
        ({"to": [{"city": "x"}]}, "city", "argument to: expected object, got array"),
    ],
)
def test_an_argument_of_another_type_is_a_policy_error(tmp_path: Path, arguments: Any, policy: str, problem: str) -> None:  # attack PRO-07
    assert ruled(tmp_path, arguments) == Verdict(False, (policy,), has_error=True, problem=problem)


@pytest.mark.parametrize("arguments", [{"id": "x", "n": 4.0, "to": {}}, {"note": 1}, {"id": None}, {"free": ["x"]}, {"unknown": [1]}])
def test_what_fits_and_what_no_policy_reads_goes_on(tmp_path: Path, arguments: Any) -> None:
    assert ruled(tmp_path, arguments) == Verdict(True, ("all",))


def test_a_tool_whose_arguments_no_policy_reads_is_not_looked_up(tmp_path: Path) -> None:
    (tmp_path / "ours.cedar").write_text(POLICIES)
    asked: list[str] = []
    engine = PolicyEngine({}, tmp_path, schema_of=lambda tenant, act: asked.append(f"{tenant} {act.resource}"))
    for act in (act_of_calling_tool("shop", "look"), act_of_invoking_agent("sales"), act_of_calling_tool("shop", "pay")):
        assert engine.decide(CedarQuestion(ALICE, act, "acme", input={"id": "x"})).allowed
    assert asked == ["acme shop.pay"]
