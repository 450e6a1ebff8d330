"""Cases that policies are tried with: what is read of them, and what comes out otherwise than expected."""

from pathlib import Path

import pytest

from policies.cedar.engine import PolicyEngine
from policies.delegation.chain import Hop, Principal
from policies.delegation.history import History
from policies.delegation.permissions import ALL_PERMISSIONS, Permissions
from policies.delegation.rulings import act_of_calling_tool, act_of_invoking_agent
from policies.what_if.cases import BadCases, Case, parse_principal, read_cases
from policies.what_if.rehearsal import build_authority, rehearse

ROLES = {"sales": ["agent:*", "tool:inventory.*"]}


def cases(text: str) -> list[Case]:
    return read_cases(text, "default|interlock-development", lambda _person: ("sales",))


def problems(entry: str) -> tuple[str, ...]:
    (result,) = rehearse(build_authority(PolicyEngine(ROLES), ROLES), cases(f"cases: [{entry}]"))
    return result.problems


def test_a_case_that_comes_out_as_expected_has_no_problem() -> None:
    assert problems("{who: alice, act: 'tool:inventory.check', expect: allow, policies: ['role:sales'], missing: []}") == ()
    assert problems("{who: alice, roles: [], act: 'agent:sales', expect: deny, reason: user-lacks-permission}") == ()
    assert problems("{who: alice, scope: ['agent:*'], act: 'tool:inventory.check', expect: deny, reason: scope-missing}") == ()
    assert problems("{who: alice, chain: [a, b, c, d], act: 'agent:sales', expect: allow}") == ()


def test_a_case_says_what_the_errand_did_before_and_may_expect_a_question(tmp_path: Path) -> None:
    (tmp_path / "ours.cedar").write_text("""
        @id("ask") @ask("May it?") forbid(principal, action, resource) when { context.history.repeats >= 2 };
        @id("sum") @total("amount") forbid(principal, action == Action::"callTool", resource) when { context.history.totals.amount > 10 };
    """)
    act = "who: alice, act: 'tool:inventory.check'"
    text = f"""cases:
    - {{{act}, expect: allow}}
    - {{{act}, history: {{calls: {{'tool:inventory.check': 2}}}}, expect: ask, policies: [ask]}}
    - {{{act}, history: {{totals: {{amount: 11}}}}, expect: deny, policies: [sum]}}
    """
    results = rehearse(build_authority(PolicyEngine(ROLES, tmp_path), ROLES), cases(text))
    assert [result.problems for result in results] == [(), (), ()]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{who: alice, act: 'tool:inventory.check', expect: deny}", "expected deny, got allow"),
        (
            "{who: alice, act: 'tool:shop.buy', expect: deny, reason: policy-forbids}",
            "expected reason policy-forbids, got user-lacks-permission",
        ),
        ("{who: alice, act: 'tool:inventory.check', expect: allow, policies: [other]}", "expected policies other, got role:sales"),
        ("{who: alice, act: 'tool:shop.buy', expect: deny, missing: []}", "expected missing none, got tool:shop.buy (user)"),
        ("{who: alice, act: 'tool:inventory.check', expect: ask}", "expected ask, got allow"),
    ],
)
def test_a_case_that_comes_out_otherwise_says_how(entry: str, problem: str) -> None:
    assert problems(entry) == (problem,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cases: {}", "line 1: must have `cases:` with a list"),
        ("", "has no cases"),
        ("# none yet", "has no cases"),
        ("cases: []\ncases: []", "with a list"),
        ("cases:\n- {who: a, act: 'agent:b', expect: 2024-13-45}", "line 2: has an unreadable value"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow}\n- [who]", "line 3: a case must be a mapping"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, 3: x}", "a case has no '3'; it has name, who,"),
        ("cases:\n- {who: a, act: 'agent:b'}", "expect must be one of allow, deny, ask"),
        ("cases:\n- {who: a, expect: allow}", "act must be a text"),
        ("cases:\n- {act: 'agent:b', expect: allow}", "who must be a text"),
        ("cases:\n- {who: '', act: 'agent:b', expect: allow}", "who must be a text"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, reason: ''}", "reason must be a text"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, reason: }", "reason must be a text"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, arguments: []}", "arguments must be a mapping"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, scope: }", "scope must be a list"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, chain: b}", "chain must be a list"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, chain: [{agent: b, roof: []}]}", "chain must be a list of agents"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, chain: [{ceiling: []}]}", "agent must be a text"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, chain: [{agent: b, ceiling: x}]}", "ceiling must be a list"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, policies: [1]}", "policies must be a list of texts"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, missing: [1]}", "missing must be a list of texts"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, history: []}", "history must be a mapping"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, history: {totals: []}}", "whole numbers"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, history: {totals: {x: 1.5}}}", "whole numbers"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, history: {calls: {x: 1, y: true}}}", "whole numbers"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, history: {taint: true}}", "taint must be a whole number"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, history: {approvals: x}}", "approvals must be a list"),
        ("- a", "a list"),
        ("cases: [", "not YAML"),
        ("cases:\n- nonsense", "line 2: a case must be a mapping"),
        ("cases:\n- {who: a, act: 'agent:b', expects: allow}", "did you mean 'expect'"),
        ("cases:\n- {who: a, act: 'agent:b', expect: maybe}", "expect must be one of"),
        ("cases:\n- {who: a, act: 'tool:*', expect: allow}", "line 2: .*not a permission"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, chain: [1]}", "chain must be a list of agents"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, scope: ['nonsense']}", "not a permission"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, arguments: 3}", "arguments must be a mapping"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, history: {call: {}}}", "history must be a mapping"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, history: {calls: {x: y}}}", "whole numbers"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, history: {taint: high}}", "taint must be a whole number"),
        ("cases:\n- {who: 3, act: 'agent:b', expect: allow}", "who must be a text"),
        ("cases:\n- {who: a, act: 'agent:b', expect: allow, roles: [1]}", "roles must be a list of texts"),
    ],
)
def test_a_file_that_has_no_cases_says_why_and_where(text: str, problem: str) -> None:
    with pytest.raises(BadCases, match=problem):
        cases(text)


def test_a_person_is_named_in_full_or_by_a_name_alone() -> None:
    (short, full) = cases(
        "cases: [{who: alice, act: 'agent:b', expect: allow}, {who: 'acme|https://idp|carol', act: 'agent:b', expect: allow}]"
    )
    assert short.principal.owner_key == "default|interlock-development|alice" and short.scope == ALL_PERMISSIONS
    assert (full.principal.tenant, full.principal.issuer, full.principal.subject) == ("acme", "https://idp", "carol")
    (hop,) = cases("cases: [{who: a, act: 'agent:b', expect: allow, chain: [{agent: s, ceiling: ['tool:x.y']}]}]")[0].path
    assert hop.ceiling == Permissions.parse(["tool:x.y"])


def test_a_minimal_case_means_one_person_with_their_roles_and_no_history() -> None:
    (case,) = cases("cases:\n\n- {who: alice, act: 'agent:sales', expect: ask}")
    assert case == Case(
        name="alice agent:sales (1)",
        line=3,
        principal=Principal("default", "interlock-development", "alice", ("sales",)),
        scope=ALL_PERMISSIONS,
        path=(),
        act=act_of_invoking_agent("sales"),
        arguments=None,
        history=History(-1, 0, {}, {}, ()),
        expect="ask",
        reason="",
        policies=None,
        missing=None,
    )


def test_a_case_is_what_it_says() -> None:
    text = """cases:
    - {who: a, act: 'agent:b', expect: allow}
    - name: the second
      who: alice
      roles: [boss, member]
      scope: ['tool:*']
      chain: [first, {agent: second, ceiling: ['tool:x.*']}, {agent: third, ceiling: []}, {agent: fourth}]
      act: tool:x.y
      arguments: {n: 1}
      history: {approvals: ['tool:x.z'], calls: {'tool:x.z': 2}, totals: {n: -5}, taint: 3}
      expect: deny
      reason: loop
      policies: []
      missing: [a, b]
    """
    assert cases(text)[1] == Case(
        name="the second",
        line=3,
        principal=Principal("default", "interlock-development", "alice", ("boss", "member")),
        scope=Permissions.parse(["tool:*"]),
        path=(Hop("first"), Hop("second", Permissions.parse(["tool:x.*"])), Hop("third", Permissions.parse([])), Hop("fourth")),
        act=act_of_calling_tool("x", "y"),
        arguments={"n": 1},
        history=History(-1, 3, {"n": -5}, {"tool:x.z": 2}, ("tool:x.z",)),
        expect="deny",
        reason="loop",
        policies=(),
        missing=("a", "b"),
    )


def test_roles_and_a_scope_that_are_said_to_be_none_are_none() -> None:
    (case,) = cases("cases: [{name: '', who: a, act: 'agent:b', expect: allow, roles: [], scope: [], history: {}, chain: []}]")
    assert (case.principal.roles, case.scope, case.path, case.history) == ((), Permissions.parse([]), (), History())
    assert case.name == "a agent:b (1)"


def test_each_of_several_cases_has_a_number() -> None:
    assert [case.name[-3:] for case in cases("cases: [" + "{who: a, act: 'agent:b', expect: allow}, " * 3 + "]")] == ["(1)", "(2)", "(3)"]
    assert cases("cases: []") == []


@pytest.mark.parametrize(
    ("who", "person"),
    [
        ("alice", Principal("acme", "https://idp", "alice")),
        ("a|b", Principal("acme", "https://idp", "a|b")),
        ("evil|https://two|bob", Principal("evil", "https://two", "bob")),
        ("evil|https://two|b|o|b", Principal("evil", "https://two", "b|o|b")),
    ],
)
def test_a_person_is_three_parts_or_the_last_of_them(who: str, person: Principal) -> None:
    assert parse_principal(who, "acme|https://idp") == person


def test_roles_are_asked_for_by_the_person() -> None:
    asked: list[Principal] = []

    def roles_of(person: Principal) -> list[str]:
        asked.append(person)
        return ["a", "b"]

    (case,) = read_cases("cases: [{who: bob, act: 'agent:b', expect: allow}]", "acme|idp", roles_of)
    assert asked == [Principal("acme", "idp", "bob")] and case.principal.roles == ("a", "b")
