"""Claims about the policy engine: it allows only what a rule permits, and refuses whatever it can't evaluate."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.cedar.engine import BadPolicy, CedarQuestion, PolicyEngine, Verdict, load_rules
from policies.delegation.chain import Principal
from policies.delegation.rulings import Act

ROLES = {"operator": ["*"], "sales": ["agent:sales", "tool:inventory.*"], "support": ["tool:inventory.read"]}
ALICE = Principal("acme", "https://idp", "alice", ("sales",))
BOB = Principal("acme", "https://idp", "bob", ("support",))
RESERVE = Act("callTool", "Tool", "inventory.reserve", "tool:inventory.reserve", "inventory")
READ = Act("callTool", "Tool", "inventory.read", "tool:inventory.read", "inventory")
SALES = Act("invokeAgent", "Agent", "sales", "agent:sales", "sales")
QUOTE = Act("invokeAgent", "Agent", "sales/quote", "agent:sales/quote", "sales")
PERMIT_ALL = '@id("all") permit(principal, action, resource);\n'
SMALL = '@id("small") permit(principal, action == Action::"callTool", resource == Tool::"inventory.reserve")'
SMALL += " when { context has input && context.input has amount && context.input.amount <= 500 };\n"


def ask(principal: Principal, act: Act, **rest: Any) -> CedarQuestion:
    return replace(CedarQuestion(principal, act, principal.tenant), **rest)


def engine(tmp_path: Path, text: str, roles: Mapping[str, list[str]] = ROLES) -> PolicyEngine:
    (tmp_path / "ours.cedar").write_text(text)
    return PolicyEngine(roles, tmp_path)


@pytest.fixture(scope="module")
def plain() -> PolicyEngine:
    return PolicyEngine(ROLES)


@pytest.mark.parametrize("act", [RESERVE, READ, SALES, QUOTE])
def test_a_role_permits_what_its_patterns_name_and_the_verdict_names_the_role(plain: PolicyEngine, act: Act) -> None:
    assert plain.decide(ask(ALICE, act)) == Verdict(True, ("role:sales",))


def test_without_a_permit_the_answer_is_no_and_names_no_policy(plain: PolicyEngine) -> None:  # attack DLG-01
    assert plain.decide(ask(BOB, RESERVE)) == Verdict(False)
    assert plain.decide(ask(BOB, READ)).allowed
    assert not plain.decide(ask(replace(BOB, roles=()), READ)).allowed


def test_another_agent_or_server_with_a_similar_name_is_not_meant(plain: PolicyEngine) -> None:
    for act in (
        Act("invokeAgent", "Agent", "sales2", "agent:sales2", "sales2"),
        Act("callTool", "Tool", "inventory2.read", "tool:inventory2.read", "inventory2"),
        Act("readResource", "Server", "inventory", "resource:inventory", "inventory"),
    ):
        assert plain.decide(ask(ALICE, act)) == Verdict(False)


def test_a_role_with_quotes_in_its_name_is_only_a_name() -> None:
    name = 'x"); permit(principal, action, resource); //'
    rules = PolicyEngine({name: ["agent:sales"]})
    assert rules.decide(ask(replace(ALICE, roles=(name,)), SALES)).policies == (f"role:{name}",)
    assert not rules.decide(ask(replace(ALICE, roles=(name,)), READ)).allowed
    assert not rules.decide(ask(ALICE, SALES)).allowed


def test_a_subject_with_quotes_is_only_a_subject(plain: PolicyEngine) -> None:
    assert plain.decide(ask(replace(ALICE, subject='a"\n\\x'), SALES)).allowed


FAMILY_ACTS = [
    SALES,
    QUOTE,
    RESERVE,
    Act("callTool", "Tool", "inventory.admin.drop", "tool:inventory.admin.drop", "inventory"),
    Act("readResource", "Server", "inventory", "resource:inventory", "inventory"),
    Act("getPrompt", "Prompt", "inventory.hello", "prompt:inventory.hello", "inventory"),
    Act("readState", "Key", "team/x", "state:read:team/x", "team/x"),
    Act("writeState", "Key", "team/x", "state:write:team/x", "team/x"),
    Act("runWorkflow", "Workflow", "orders", "workflow:orders", "orders"),
    Act("registerAgent", "Key", "write", "registry:write", "write"),
    Act("decideApproval", "Task", "decide", "approval:decide", "decide"),
    Act("readAudit", "Task", "read", "audit:read", "read"),
    Act("writePolicy", "Task", "write", "policy:write", "write"),
]


def test_an_unknown_family_in_a_role_is_refused_and_named() -> None:
    with pytest.raises(BadPolicy, match="tools:") as refused:
        load_rules({"sales": ["tools:inventory.*"]})
    assert refused.value.file == "roles"


def test_no_permit_lifts_the_wall_between_tenants(tmp_path: Path) -> None:
    rules = engine(tmp_path, PERMIT_ALL)
    assert rules.decide(ask(ALICE, SALES)).allowed
    verdict = rules.decide(ask(ALICE, SALES, tenant="evil"))
    assert not verdict.allowed and verdict.policies == ("inv-tenant",) and not verdict.has_error


def test_an_operators_file_cannot_replace_a_built_in_one_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "invariants.cedar").write_text("permit(principal, action, resource);" * 3)
    assert PolicyEngine(ROLES, tmp_path).decide(ask(ALICE, SALES, tenant="evil")) == Verdict(False, ("inv-tenant",))


def test_no_permit_lifts_the_longest_chain(tmp_path: Path) -> None:  # attack DLG-05
    rules = engine(tmp_path, PERMIT_ALL)
    assert rules.decide(ask(ALICE, SALES, depth=4)).allowed
    for depth in (5, -1):
        assert rules.decide(ask(ALICE, SALES, depth=depth)) == Verdict(False, ("inv-depth",))


def test_nobody_without_a_subject_is_anybody(tmp_path: Path) -> None:
    assert engine(tmp_path, PERMIT_ALL).decide(ask(replace(ALICE, subject=""), SALES)) == Verdict(False, ("inv-user",))


def test_an_operators_permit_grants_more_than_the_roles_and_a_forbid_takes_away(tmp_path: Path) -> None:
    text = '@id("bob-too") permit(principal, action, resource in Server::"inventory") when { principal.subject == "bob" };'
    text += (
        '@id("chain") forbid(principal, action, resource) unless { !context.chain.contains("rogue") && context.scopes.contains("tool:*") };'
    )
    rules = engine(tmp_path, text)
    assert rules.decide(ask(BOB, RESERVE, scopes=("tool:*",))) == Verdict(True, ("bob-too",))
    assert rules.decide(ask(BOB, READ, scopes=("tool:*",))).policies == ("bob-too", "role:support")
    assert rules.decide(ask(BOB, RESERVE, scopes=("tool:*",), chain=("a", "rogue"))) == Verdict(False, ("chain",))
    assert rules.decide(ask(BOB, RESERVE)) == Verdict(False, ("chain",))


def test_a_forbid_that_fails_beside_a_permit_all_refuses(tmp_path: Path) -> None:
    rules = engine(tmp_path, PERMIT_ALL + '@id("broken") forbid(principal, action, resource) when { context.input.nothing == 1 };')
    verdict = rules.decide(ask(ALICE, SALES))
    assert not verdict.allowed and verdict.has_error


def test_a_question_that_cedar_cannot_read_is_refused(tmp_path: Path) -> None:
    rules = engine(tmp_path, PERMIT_ALL)
    odd: list[dict[str, Any]] = [
        {"act": msgspec.structs.replace(SALES, kind="not a type")},
        {"depth": 1 << 70},
        {"task": "\ud800"},
        {"scopes": (object(),)},
    ]
    for change in odd:
        expected = Verdict(False, has_error=True, problem="the policies can't be evaluated on this act")
        assert rules.decide(replace(ask(ALICE, SALES), **change)) == expected, change


def test_a_limit_on_an_argument_is_kept(tmp_path: Path) -> None:
    rules = engine(tmp_path, SMALL)
    assert rules.decide(ask(BOB, RESERVE, input={"amount": 500})) == Verdict(True, ("small",))
    assert rules.decide(ask(BOB, RESERVE, input={"amount": 501})) == Verdict(False)
    assert rules.decide(ask(BOB, RESERVE)) == Verdict(False)
    assert rules.decide(ask(BOB, RESERVE, input={"amount": None})) == Verdict(False)
    assert rules.decide(ask(BOB, RESERVE, input={"amount": "1"})).has_error
    beyond = rules.decide(ask(BOB, RESERVE, input={"amount": 1 << 63}))
    assert (beyond.allowed, beyond.policies, beyond.has_error) == (False, ("small",), True)


def test_a_float_is_a_decimal_or_a_refusal(tmp_path: Path) -> None:
    text = '@id("d") permit(principal, action, resource) when { context.input.price.lessThan(decimal("2.5")) };'
    rules = engine(tmp_path, text)
    assert rules.decide(ask(BOB, RESERVE, input={"price": 2.25})).allowed
    assert not rules.decide(ask(BOB, RESERVE, input={"price": 2.5})).allowed
    assert rules.decide(ask(BOB, RESERVE, input={"price": -3.0})).allowed
    assert rules.decide(ask(BOB, RESERVE, input={"price": 2})).allowed  # JSON knows one kind of number
    assert rules.decide(ask(BOB, RESERVE, input={"price": 3})) == Verdict(False)
    for odd in (1.23456, 1e18, 1e300, float("nan"), float("inf"), 1 << 62, True):
        assert rules.decide(ask(BOB, RESERVE, input={"price": odd})).has_error, odd


ONE_OF_FOUR = [
    ("context.input.n == 4", [4, 4.0, 4e0]),
    ("[4, 5].contains(context.input.n)", [4, 5.0]),
    ("context.input.n.contains(4)", [[4], [1, 4.0], [None, 4.0]]),
    ('context.input.n == decimal("4.0")', [4, 4.0]),
    ('context.input.n == decimal("-0.0")', [0, -0.0, 0.0]),
    ('[decimal("4.0"), decimal("0.5")].contains(context.input.n)', [4, 4.0, 0.5]),
    ('context.input.n.containsAny([decimal("4.0")])', [[4], [0.5, 4.0], [4, 0.5]]),
    ('context.input.n.greaterThan(decimal("3.0")) || context.input.n == decimal("1.0")', [4, 3.5, 1]),
    ('(if context.input has n then context.input.n else decimal("0.0")) == decimal("4.0")', [4, 4.0]),
]


@pytest.mark.parametrize(("condition", "numbers"), ONE_OF_FOUR)
def test_a_number_that_is_forbidden_is_forbidden_however_it_is_written(tmp_path: Path, condition: str, numbers: list[Any]) -> None:
    rules = engine(tmp_path, PERMIT_ALL + f'@id("no") forbid(principal, action, resource) when {{ {condition} }};')
    for number in numbers:
        assert rules.decide(ask(BOB, RESERVE, input={"n": number})) == Verdict(False, ("no",)), number
    other: Any = [2] if isinstance(numbers[0], list) else 2
    assert rules.decide(ask(BOB, RESERVE, input={"n": other})).allowed


@pytest.mark.parametrize("name", ["__entity", "__extn", "__expr"])
def test_arguments_cannot_pose_as_entities_or_functions(tmp_path: Path, name: str) -> None:
    text = '@id("role") permit(principal, action, resource) when { context.input.as == Role::"operator" };'
    value = {name: {"type": "Role", "id": "operator"}}
    verdict = engine(tmp_path, text).decide(ask(BOB, RESERVE, input={"as": value}))
    assert (verdict.allowed, verdict.has_error) == (False, True)
    assert verdict.problem == "argument as: a member has a name that Cedar reserves"


def test_arguments_that_no_policy_reads_do_not_matter(plain: PolicyEngine) -> None:
    assert plain.decide(ask(ALICE, RESERVE, input={"latitude": 52.520008, "n": 1 << 80})).allowed


def test_deep_arguments_are_refused_not_a_crash(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(20_000):
        deep = {"a": deep}
    expected = Verdict(False, has_error=True, problem="the arguments are nested too deeply")
    assert engine(tmp_path, SMALL).decide(ask(BOB, RESERVE, input=deep)) == expected


@pytest.mark.parametrize(
    ("scope", "applies"),
    [
        ("principal, action, resource", (RESERVE, READ, SALES, QUOTE)),
        ('principal, action == Action::"callTool", resource', (RESERVE, READ)),
        ('principal, action in [Action::"invokeAgent", Action::"readState"], resource', (SALES, QUOTE)),
        ('principal, action in Action::"callTool", resource == Tool::"inventory.read"', (READ,)),
        ('principal, action, resource in Server::"inventory"', (RESERVE, READ)),
        ("principal, action, resource is Tool", (RESERVE, READ)),
        ('principal, action, resource is Tool in Server::"other"', ()),
        ('principal, action, resource is Agent in Agent::"sales"', (SALES, QUOTE)),
    ],
)
def test_only_policies_whose_scope_fits_make_an_act_depend_on_its_arguments(tmp_path: Path, scope: str, applies: tuple[Act, ...]) -> None:
    rules = engine(tmp_path, f"permit({scope}) when {{ context.input.amount == 1 }};")
    assert tuple(act for act in (RESERVE, READ, SALES, QUOTE) if rules.reads_input(act)) == applies


@pytest.mark.parametrize(
    "condition",
    [
        'action == Action::"callTool"',
        'Action::"callTool" == action',
        '!(action != Action::"callTool")',
        'action in [Action::"callTool", Action::"getPrompt"]',
        '[Action::"callTool", Action::"getPrompt"].contains(action)',
        '[Action::"inventory.reserve", Action::"callTool"].contains(action) && resource is Tool',
    ],
)
def test_a_forbid_of_tools_forbids_each_of_them_however_it_is_written(tmp_path: Path, condition: str) -> None:
    rules = engine(
        tmp_path, f'@id("all") permit(principal, action, resource); @id("no") forbid(principal, action, resource) when {{ {condition} }};'
    )
    assert [rules.decide(ask(BOB, act)).allowed for act in (RESERVE, READ, SALES)] == [False, False, True]


def test_a_forbid_that_would_meet_no_tool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPolicy, match="action in Action"):
        engine(tmp_path, 'forbid(principal, action, resource) when { {a: action}.a == Action::"callTool" };')


def test_an_act_without_reading_policies_does_not_depend_on_its_arguments(plain: PolicyEngine) -> None:
    assert not any(plain.reads_input(act) for act in FAMILY_ACTS)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_arguments_change_the_cache_key_only_where_a_policy_reads_them(value: Any) -> None:
    assert LIMITED.decide(ask(ALICE, READ, input={"amount": value})) == LIMITED.decide(ask(ALICE, READ))
    verdict = LIMITED.decide(ask(BOB, RESERVE, input={"amount": value}))
    number = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    assert verdict.allowed == (number and -(1 << 63) <= value <= 500)


def test_a_tool_is_listed_when_some_arguments_would_be_allowed(tmp_path: Path) -> None:
    rules = engine(tmp_path, SMALL + '@id("no") forbid(principal, action, resource) unless { context.input.amount > 0 };')
    assert rules.best_verdict(ask(BOB, RESERVE)).allowed and rules.best_verdict(ask(BOB, READ)).allowed
    assert not rules.best_verdict(ask(BOB, SALES)).allowed
    assert not rules.best_verdict(ask(BOB, RESERVE, tenant="evil")).allowed


@pytest.mark.parametrize("condition", ["context.input.amount < 5", "context.history.repeats < 5"])
def test_a_tool_is_not_listed_for_whom_no_arguments_would_be_allowed(tmp_path: Path, condition: str) -> None:
    """What is beside the unknown in one condition is looked at."""
    rules = engine(tmp_path, f'permit(principal, action, resource) when {{ principal.subject == "bob" && {condition} }};', {})
    assert rules.best_verdict(ask(BOB, RESERVE)).allowed
    assert not rules.best_verdict(ask(ALICE, RESERVE)).allowed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("permit(principal, action, resource", "unexpected end"),
        ('permit(principal, action == Action::"callTools", resource);', "no action 'callTools'"),
        ('permit(principal, action, resource == Tol::"x.y");', "no entity type 'Tol'"),
        ("permit(principal, action, resource is Tol);", "no entity type 'Tol'"),
        ("forbid(principal, action, resource) when { context.inputs.x == 1 };", "no attribute 'inputs'"),
        ('forbid(principal, action, resource) when { principal.subjct == "x" };', "did you mean 'subject'"),
        ("forbid(principal, action, resource) when { resource has owner };", "resource has no attribute 'owner'"),
        ('forbid(principal in Server::"x", action, resource);', "applicable action"),
        ('forbid(principal, action, resource) when { context.depth == "1" };', "not compatible"),
        ('@id("inv-tenant") permit(principal, action, resource);', "taken by invariants.cedar"),
        ('@id("role:operator") permit(principal, action, resource);', "the role rule"),
        ('@id("a") permit(principal, action, resource);@id("a") permit(principal, action, resource);', "taken by ours.cedar"),
    ],
)
def test_a_policy_that_would_mislead_is_refused_with_its_file(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "ours.cedar").write_text(text)
    with pytest.raises(BadPolicy, match="(?i)" + problem) as refused:
        load_rules(ROLES, tmp_path)
    assert refused.value.file == "ours.cedar"


def test_a_policy_without_an_id_is_explained_by_its_file_and_place(tmp_path: Path) -> None:
    rules = engine(tmp_path, 'permit(principal == User::"x", action, resource);\npermit(principal, action, resource);')
    assert rules.decide(ask(BOB, SALES)).policies == ("ours.cedar#2",)


def test_a_role_taken_away_is_gone_at_the_next_question(plain: PolicyEngine) -> None:
    assert plain.decide(ask(ALICE, SALES)).allowed
    assert not plain.decide(ask(replace(ALICE, roles=("support",)), SALES)).allowed


FOLDER = TemporaryDirectory()
(Path(FOLDER.name) / "ours.cedar").write_text(SMALL)
LIMITED = PolicyEngine(ROLES, Path(FOLDER.name))


BOTH = """
@id("four") forbid(principal, action == Action::"callTool", resource) when { context.input has amount && %s };
@id("most") forbid(principal, action == Action::"callTool", resource) when {
    context.input has amount && context.input.amount.greaterThan(decimal("99.5"))
};
"""


@pytest.mark.parametrize("four", ["context.input.amount == 4", "[4, 5].contains(context.input.amount)"])
def test_a_forbid_of_whole_numbers_does_not_end_with_another_of_decimals(tmp_path: Path, four: str) -> None:
    rules = engine(tmp_path, BOTH % four)
    for amount in (4, 4.0, 100, 100.5):
        assert not rules.decide(ask(ALICE, RESERVE, input={"amount": amount})).allowed
    assert rules.decide(ask(ALICE, RESERVE, input={"amount": 4.5})).allowed
    assert rules.decide(ask(ALICE, RESERVE, input={})).allowed


def test_policies_for_different_tools_may_take_one_name_for_different_numbers(tmp_path: Path) -> None:
    elsewhere = BOTH.replace("resource) when {\n", 'resource == Tool::"inventory.read") when {\n')
    rules = engine(tmp_path, elsewhere % "context.input.amount == 4")
    assert rules.decide(ask(ALICE, RESERVE, input={"amount": 4})).policies == ("four",)
    assert rules.decide(ask(ALICE, RESERVE, input={"amount": 100})).allowed


def test_a_decimal_that_is_compared_roundabout_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(BadPolicy, match="indirectly"):
        engine(tmp_path, BOTH % 'context.input == {amount: decimal("4.0")}')


@pytest.mark.parametrize(
    ("key", "allowed"), [("customer/42/profile/note", False), ("customer/42/profile", False), ("customer/42/profiles", True)]
)
def test_a_policy_on_a_prefix_ends_at_the_end_of_a_segment(tmp_path: Path, key: str, allowed: bool) -> None:
    text = 'forbid(principal, action == Action::"writeState", resource in Key::"customer/42/profile");'
    made = engine(tmp_path, f'@id("people")\n{text}\n', {"sales": ["state:write:customer/*"]})
    act = Act("writeState", "Key", key, f"state:write:{key}", key.rpartition("/")[0])
    assert made.decide(ask(ALICE, act)) == (Verdict(True, ("role:sales",)) if allowed else Verdict(False, ("people",)))


def reading(key: str) -> Act:
    return Act("readState", "Key", key, f"state:read:{key}", key.rpartition("/")[0] or key)


@pytest.mark.parametrize("pattern", ["state:read:customer/4", "state:read:customer/4/*"])
@pytest.mark.parametrize("key", ["customer/42", "customer/42/status", "customer/4.2", "customer/4-2", "customer"])
def test_a_permission_on_a_prefix_covers_no_longer_segment(pattern: str, key: str) -> None:
    made = PolicyEngine({"sales": [pattern]})
    assert not made.decide(ask(ALICE, reading(key))).allowed
    assert made.decide(ask(ALICE, reading("customer/4/status"))).allowed
