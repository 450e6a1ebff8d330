"""A rehearsal: the authority itself rules, without a gateway, on people who are not here."""

from pathlib import Path

import pytest

from policies.cedar.engine import PolicyEngine
from policies.what_if.cases import Case, read_cases
from policies.what_if.rehearsal import CaseResult, build_authority, outcome_of, rehearse

ROLES = {"sales": ["agent:*", "tool:inventory.*"]}


def cases(*entries: str) -> list[Case]:
    return read_cases("cases:\n" + "\n".join(f"- {{who: alice, {entry}}}" for entry in entries), "default|dev", lambda _: ("sales",))


@pytest.fixture(scope="module")
def results() -> list[CaseResult]:
    given = cases(
        "act: 'tool:inventory.check', expect: allow",
        "act: 'tool:shop.buy', expect: allow, reason: allowed, policies: [a, b], missing: [x]",
        "act: 'tool:inventory.check', expect: deny, policies: []",
        "act: 'tool:inventory.check', chain: [{agent: a, ceiling: []}], expect: deny, reason: ceiling-exceeded",
        "act: 'tool:inventory.check', roles: [nobody], expect: deny, reason: user-lacks-permission, policies: []",
        "act: 'tool:inventory.check', scope: [], expect: deny, reason: scope-missing",
    )
    return rehearse(build_authority(PolicyEngine(ROLES), ROLES), given)


def test_each_case_is_ruled_on_by_itself_and_in_its_order(results: list[CaseResult]) -> None:
    assert [result.outcome for result in results] == ["allow", "deny", "allow", "deny", "deny", "deny"]
    assert [result.case.line for result in results] == [2, 3, 4, 5, 6, 7]
    assert all(result.decision.allowed == (result.outcome == "allow") for result in results)


def test_all_that_is_not_as_expected_is_said(results: list[CaseResult]) -> None:
    assert [result.problems for result in results] == [
        (),
        (
            "expected allow, got deny",
            "expected reason allowed, got user-lacks-permission",
            "expected policies a, b, got none",
            "expected missing x, got tool:shop.buy (user)",
        ),
        ("expected deny, got allow", "expected policies none, got role:sales"),
        (),
        (),
        (),
    ]


def test_what_people_would_be_asked_is_an_outcome_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "ours.cedar").write_text('@id("q") @ask("May it?") forbid(principal, action, resource) when { context.input.n > 1 };')
    given = cases(
        "act: 'tool:inventory.check', arguments: {n: 2}, expect: ask, reason: approval-needed, policies: [q]",
        "act: 'tool:inventory.check', arguments: {n: 1}, expect: allow",
        "act: 'tool:inventory.check', expect: deny, reason: policy-error",
    )
    results = rehearse(build_authority(PolicyEngine(ROLES, tmp_path), ROLES), given)
    assert [(result.outcome, result.problems) for result in results] == [("ask", ()), ("allow", ()), ("deny", ())]
    assert [outcome_of(result.decision) for result in results] == ["ask", "allow", "deny"]


def test_the_roles_of_a_case_are_those_that_it_says() -> None:
    given = cases("act: 'tool:inventory.check', roles: [sales, other], expect: allow", "act: 'agent:a', roles: [other], expect: deny")
    assert [result.problems for result in rehearse(build_authority(PolicyEngine(ROLES), ROLES), given)] == [(), ()]


def test_a_rehearsal_is_never_out_of_date() -> None:
    assert build_authority(PolicyEngine(ROLES), ROLES).is_fresh
