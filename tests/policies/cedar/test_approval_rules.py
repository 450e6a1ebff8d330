"""Policies that ask people, and those that look at what an errand did before."""

from pathlib import Path
from typing import Any

import pytest

from policies.cedar.annotations import AskAnnotation
from policies.cedar.engine import BadPolicy, CedarQuestion, PolicyEngine, Verdict
from policies.delegation.chain import Principal
from policies.delegation.history import History
from policies.delegation.rulings import Act, act_of_calling_tool

ROLES = {"sales": ["tool:crm.*"], "nobody": []}
ALICE = Principal("acme", "https://idp", "alice", ("sales",))
NORA = Principal("acme", "https://idp", "nora", ("nobody",))
REFUND = act_of_calling_tool("crm", "refund")
WHERE = '(principal, action == Action::"callTool", resource == Tool::"crm.refund")'
LARGE = f"forbid{WHERE} when {{ context.input.amount > 500 }};"
ASKS = f'@id("large") @ask("Refunds above 500 need a second person") @approvals("2") @expires("30m") {LARGE}'


def engine(folder: Path, text: str) -> PolicyEngine:
    (folder / "ours.cedar").write_text(text)
    return PolicyEngine(ROLES, folder)


def ask(who: Principal = ALICE, act: Act = REFUND, **rest: Any) -> CedarQuestion:
    return CedarQuestion(who, act, who.tenant, **rest)


def test_what_only_asking_policies_forbid_is_asked_of_people(tmp_path: Path) -> None:
    rules = engine(tmp_path, ASKS)
    assert rules.decide(ask(input={"amount": 501})) == Verdict(False, ("large",), needs_approval=True)
    assert rules.combined_ask(("large",)) == AskAnnotation("Refunds above 500 need a second person", 2, 1800)
    assert rules.decide(ask(input={"amount": 500})).allowed


def test_what_anything_else_forbids_is_not_asked(tmp_path: Path) -> None:
    rules = engine(tmp_path, ASKS + f'@id("never") forbid{WHERE} when {{ context.input.amount > 1000 }};')
    assert rules.decide(ask(input={"amount": 600})).needs_approval
    assert rules.decide(ask(input={"amount": 1001})) == Verdict(False, ("large", "never"))


def test_what_nothing_permits_is_not_asked(tmp_path: Path) -> None:
    assert engine(tmp_path, ASKS).decide(ask(NORA, input={"amount": 501})) == Verdict(False)


def test_an_asking_policy_that_fails_refuses(tmp_path: Path) -> None:
    verdict = engine(tmp_path, ASKS).decide(ask(input={}))
    assert (verdict.allowed, verdict.needs_approval, verdict.has_error) == (False, False, True)
    assert verdict.policies == ("large",) and "argument amount" in verdict.problem


def test_a_tool_that_asks_is_listed(tmp_path: Path) -> None:
    rules = engine(tmp_path, f'@ask("sure?") forbid{WHERE};')
    assert rules.best_verdict(ask()).allowed and rules.decide(ask()).needs_approval


@pytest.mark.parametrize(
    ("annotations", "effect", "problem"),
    [
        ('@ask("sure?")', "permit", "@ask belongs on a forbid"),
        ('@ask("")', "forbid", "@ask needs one line"),
        ('@ask("two\\nlines")', "forbid", "@ask needs one line"),
        ('@ask("sure?") @approvals("0")', "forbid", "@approvals must be a number"),
        ('@ask("sure?") @approvals("six")', "forbid", "@approvals must be a number"),
        ('@ask("sure?") @expires("8d")', "forbid", "@expires must be a duration"),
        ('@ask("sure?") @expires("soon")', "forbid", "@expires must be a duration"),
        ('@approvals("2")', "forbid", "@approvals needs an @ask beside it"),
        ('@total("a.b")', "forbid", "@total must name one argument"),
    ],
)
def test_an_annotation_that_can_not_be_meant_is_refused_with_its_line(tmp_path: Path, annotations: str, effect: str, problem: str) -> None:
    with pytest.raises(BadPolicy, match=problem) as refused:
        engine(tmp_path, f"// a comment\n{annotations} {effect}{WHERE};")
    assert refused.value.line == 2


TOTAL = f'@id("most") @total("amount") forbid{WHERE} when {{ context.history.totals.amount + context.input.amount > 1000 }};'


def test_a_policy_sees_what_the_errand_did_before(tmp_path: Path) -> None:
    rules = engine(tmp_path, TOTAL)
    assert rules.needs_history(REFUND) and not rules.needs_history(act_of_calling_tool("crm", "find"))
    assert (rules.total_names(REFUND), rules.total_names(act_of_calling_tool("crm", "find"))) == ({"amount"}, frozenset())
    for before, allowed in ((0, True), (500, True), (501, False)):
        history = History(totals={"amount": before}).to_policy_context(REFUND.permission, rules.all_total_names)
        assert rules.decide(ask(input={"amount": 500}, history=history)).allowed is allowed


def test_a_policy_that_is_not_told_the_history_refuses(tmp_path: Path) -> None:
    verdict = engine(tmp_path, TOTAL).decide(ask(input={"amount": 1}))
    assert (verdict.allowed, verdict.has_error, verdict.policies) == (False, True, ("most",))
    assert "`history`" in verdict.problem
    assert engine(tmp_path, TOTAL).best_verdict(ask()).allowed


def test_calls_approvals_and_taint_can_be_read(tmp_path: Path) -> None:
    text = f"""@id("once") forbid{WHERE} when {{ context.history.repeats > 0 }};
@id("looked") forbid{WHERE} unless {{ context.history.calls has "tool:crm.find" }};
@id("asked") forbid{WHERE} unless {{ context.history.approvals.contains("tool:crm.find") }};
@id("clean") forbid{WHERE} when {{ context.history.taint > 1 }};"""
    rules = engine(tmp_path, text)

    def refusing(history: History) -> tuple[str, ...]:
        verdict = rules.decide(ask(history=history.to_policy_context(REFUND.permission, rules.all_total_names)))
        return () if verdict.allowed else verdict.policies

    good = History(calls={"tool:crm.find": 1}, approvals=("tool:crm.find",), taint=1)
    assert refusing(good) == ()
    assert refusing(History(taint=2)) == ("asked", "clean", "looked")
    assert refusing(History(calls={"tool:crm.find": 1, "tool:crm.refund": 1}, approvals=("tool:crm.find",))) == ("once",)
