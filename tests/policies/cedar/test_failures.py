"""A policy that can't be evaluated is named with the argument at fault, and no other policy is blamed for it."""

from pathlib import Path
from typing import Any

import pytest

from gateway.audit.explanations import decision_document, explain_refusal
from policies.audit.log import decision_record
from policies.authority import RulingRequest
from policies.cedar.engine import CedarQuestion, PolicyEngine
from policies.cedar.failures import PROBLEM_MAX, UNEVALUABLE, PolicyFailure, failure_from_errors, failure_of_inexpressible
from policies.cedar.values import NotExpressible
from policies.delegation.chain import Principal
from policies.delegation.rulings import Act
from tests.fakes.authority import LARGE, REFUND, Scene, denied, granted

ROLES = {"sales": ["tool:crm.*"]}
ALICE = Principal("acme", "https://idp", "alice", ("sales",))
ACT = Act("callTool", "Tool", "crm.refund", "tool:crm.refund", "crm")
HEAD = 'forbid(principal, action == Action::"callTool", resource) when'
POLICIES = f"""
@id("small") {HEAD} {{ context.input has amount && context.input.amount > 500 }};
@id("noted") {HEAD} {{ context.input has amount && context.input.note == "x" }};
@id("priced") {HEAD} {{ context.input has price && context.input.price.lessThan(decimal("9.5")) }};
@id("deep") {HEAD} {{ context.input has to && context.input.to.city like "x*" }};
@id("sound") permit(principal, action, resource);
"""


def told(tmp_path: Path, arguments: dict[str, Any], text: str = POLICIES) -> tuple[tuple[str, ...], str]:
    (tmp_path / "ours.cedar").write_text(text)
    verdict = PolicyEngine(ROLES, tmp_path).decide(CedarQuestion(ALICE, ACT, "acme", input=arguments))
    assert verdict.has_error and not verdict.allowed
    return verdict.policies, verdict.problem


@pytest.mark.parametrize(
    ("arguments", "policies", "problem"),
    [
        ({"amount": "many", "note": "y"}, ("small",), "small: argument amount: type error: expected long, got string"),
        ({"amount": [1], "note": "y"}, ("small",), "small: argument amount: type error: expected long, got set"),
        ({"amount": 1}, ("noted",), "noted: argument note: record does not have the attribute `note`"),
        ({"to": {"city": 5}}, ("deep",), "deep: argument to.city: type error: expected string, got long"),
        ({"to": {}}, ("deep",), "deep: argument to.city: record does not have the attribute `city`"),
        (
            {"to": "home"},
            ("deep",),
            "deep: argument to: type error: expected one of [record, (entity of type `any_entity_type`)], got string",
        ),
        ({"price": "x"}, ("priced",), "priced: argument price: type error: expected decimal, got string"),
    ],
)
def test_the_failing_policy_is_named_with_its_argument(
    tmp_path: Path, arguments: dict[str, Any], policies: tuple[str, ...], problem: str
) -> None:
    assert told(tmp_path, arguments) == (policies, problem)


def test_all_that_fail_are_named(tmp_path: Path) -> None:
    policies, problem = told(tmp_path, {"amount": "many"})
    assert policies == ("noted", "small")
    assert problem.startswith("noted: argument note: ") and "; small: argument amount: " in problem


@pytest.mark.parametrize(
    ("arguments", "policies", "problem"),
    [
        ({"amount": 1 << 63}, ("noted", "small"), "argument amount: an integer needs more than 64 bits"),
        ({"price": 0.123456}, ("priced",), "argument price: a number is not a decimal with at most four digits after the point"),
        ({"price": 10**15}, ("priced",), "argument price: a number is too large for a decimal"),
        ({"to": {"city": {"__extn": 1}}}, ("deep",), "argument to.city: a member has a name that Cedar reserves"),
        ({"other": [{"x": 1 << 70}]}, (), "argument other.x: an integer needs more than 64 bits"),
    ],
)
def test_an_argument_that_no_policy_can_read_is_named(
    tmp_path: Path, arguments: dict[str, Any], policies: tuple[str, ...], problem: str
) -> None:
    assert told(tmp_path, arguments) == (policies, problem)


def test_arguments_without_end_are_no_policys_fault(tmp_path: Path) -> None:
    nested: dict[str, Any] = {}
    inner = nested
    for _ in range(20_000):
        inner["a"] = inner = {}
    assert told(tmp_path, nested) == ((), "the arguments are nested too deeply")


KINDS = {"bool": True, "long": 1, "string": "a", "decimal": {"__extn": {"fn": "decimal", "arg": "1.0"}}, "record": {"a": 1}, "set": [1]}


def path(*names: str) -> dict[str, Any]:
    """`context.input` and what the names lead to, as Cedar's JSON."""
    node: dict[str, Any] = {".": {"left": {"Var": "context"}, "attr": "input"}}
    for name in names:
        node = {".": {"left": node, "attr": name}}
    return node


def reading(*paths: tuple[str, ...]) -> dict[str, Any]:
    return {"annotations": {"id": "p"}, "conditions": [{"kind": "when", "body": {"Set": [path(*each) for each in paths]}}]}


def problem(said: str, arguments: Any, *paths: tuple[str, ...]) -> str:
    return failure_from_errors([f"error while evaluating policy `k`: {said}"], {"k": reading(*paths)}, arguments).problem


@pytest.mark.parametrize("kind", KINDS)
def test_the_argument_at_fault_is_of_the_type_that_was_met(kind: str) -> None:
    names = tuple((name,) for name in KINDS)
    assert problem(f"expected x, got {kind}", KINDS, *names) == f"p: argument {kind}: expected x, got {kind}"
    assert problem(f"expected x, got {kind}", {"to": KINDS}, *(("to", *name) for name in names)).startswith(f"p: argument to.{kind}: ")


def test_an_argument_is_not_at_fault_for_what_another_lacks() -> None:
    said = "record does not have the attribute `city`"
    assert (
        problem(said, {"to": {"street": "x"}, "by": {}}, ("to", "street"), ("to", "city"), ("by", "road")) == f"p: argument to.city: {said}"
    )
    assert problem(said, {"to": {"city": {}}}, ("to", "city", "zip")) == f"p: {said}"
    assert problem("got lost", {"a": 1}, ("a",)) == "p: got lost"
    assert problem("expected x, got long", {"a": 1, "b": 2, "c": "d"}, ("b",), ("a",), ("c",)) == "p: argument a, b: expected x, got long"
    assert problem("expected x, got long", {"a": "b"}, ("a", "b", "c")) == "p: expected x, got long"
    assert problem("expected x, got string", {"a": "b"}, ("a", "b", "c")) == "p: argument a: expected x, got string"


def test_a_policy_that_reads_everything_reads_what_can_not_be_expressed() -> None:
    beyond = NotExpressible("too large", ("a", "b"))
    named = {
        "whole": reading(()),
        "same": reading(("a", "b")),
        "above": reading(("a",)),
        "below": reading(("a", "b", "c")),
        "no": reading(("b",)),
    }
    policies = [{**policy, "annotations": {"id": name}} for name, policy in named.items()]
    assert failure_of_inexpressible(beyond, policies) == PolicyFailure(("above", "below", "same", "whole"), "argument a.b: too large")


def test_what_cedar_says_of_no_policy_is_told_as_it_is() -> None:
    assert failure_from_errors(["failed to build request: no luck"], {}, None) == PolicyFailure((), UNEVALUABLE)
    assert failure_from_errors(["error while evaluating policy `gone`: x"], {}, None) == PolicyFailure((), UNEVALUABLE)
    assert failure_from_errors([], {}, None) == PolicyFailure((), "")
    long = {"p": {"annotations": {"id": "a"}, "conditions": []}}
    assert len(failure_from_errors([f"error while evaluating policy `p`: {'x' * 1000}"], long, None).problem) == PROBLEM_MAX
    assert failure_of_inexpressible(NotExpressible("a list"), ()) == PolicyFailure((), "argument list: a list")


def test_caller_operator_and_audit_are_told_the_same(tmp_path: Path) -> None:
    scene = Scene(tmp_path, LARGE)
    decision = denied(scene, scene.caller(), RulingRequest(REFUND, "acme", {"amount": "many"})).decision
    assert (decision.reason_id, decision.policies) == ("policy-error", ("large",))
    assert decision.problem == "large: argument amount: type error: expected long, got string"
    assert decision_document(decision)["problem"] == decision_record(decision, ALICE)["problem"] == decision.problem
    assert f"Policies: large. Problem: {decision.problem}. Decision" in explain_refusal(decision)
    sound = granted(scene, scene.caller(), RulingRequest(REFUND, "acme", {"amount": 1})).decision
    assert "problem" not in decision_document(sound) and "problem" not in decision_record(sound, ALICE)
