"""Rulings for lists: policies are evaluated once for acts that they do not tell apart, and the outcome is that of each act by itself."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.callers import Caller
from policies.cedar.syntax import ActClasses
from policies.delegation.chain import Hop, Principal
from policies.delegation.kills import Kill
from policies.delegation.permissions import Permissions
from policies.delegation.rulings import Act, act_of_calling_tool, act_of_getting_prompt, act_of_invoking_agent, act_of_reading_resource
from tests.fakes.authority import ADA, ALICE, NORA, RICK, Scene
from tests.fakes.cedar_policies import parsed, when

BEN = Principal("acme", ALICE.issuer, "ben", ALICE.roles)
TOOLS = [act_of_calling_tool(server, tool) for server in ("crm", "mail") for tool in ("read", "refund", "send", "a/b")]
ACTS = [
    *TOOLS,
    *(act_of_invoking_agent(*names) for names in (("sales",), ("sales", "quote"), ("sales-eu",), ("ops", "quote"))),
    *(act_of_getting_prompt("crm", name) for name in ("read", "hello")),
    act_of_reading_resource("crm"),
]
POLICIES = (
    '@id("one") forbid(principal, action, resource == Tool::"crm.refund");',
    '@id("server") forbid(principal, action, resource in Server::"mail");',
    '@id("own") forbid(principal, action == Action::"crm.send", resource);',
    '@id("agent") forbid(principal, action == Action::"invokeAgent", resource in Agent::"sales");',
    '@id("kind") forbid(principal, action, resource is Prompt);',
    '@id("like") forbid(principal, action, resource) when { resource.permission like "tool:*.read" };',
    '@id("literal") forbid(principal, action, resource) when { resource == Tool::"mail.send" };',
    '@id("acting") forbid(principal, action, resource) when { action == Action::"crm.read" };',
    '@id("person") forbid(principal, action, resource in Server::"crm") when { principal.subject == "ben" };',
    '@id("more") permit(principal in Role::"nobody", action, resource in Server::"crm");',
    '@id("tenant") forbid(principal, action, resource) when { resource.tenant != principal.tenant };',
    '@id("input") forbid(principal, action in Action::"callTool", resource == Tool::"crm.read") when { context.input.a == 1 };',
    '@id("chain") forbid(principal, action, resource in Agent::"ops") when { context.chain.contains("front") };',
)
SCOPES = (None, Permissions.parse(["tool:crm.*"]), Permissions.parse(["agent:sales", "tool:mail.send"]))


def caller_of(scene: Scene, person: Principal, hops: tuple[Hop, ...] = (), scope: Permissions | None = None) -> Caller:
    return scene.caller(*hops, who=person, **({} if scope is None else {"scope": scope}))


@settings(max_examples=60)
@given(
    st.sets(st.sampled_from(POLICIES), max_size=4),
    st.lists(
        st.tuples(
            st.sampled_from((ALICE, BEN, NORA, RICK, ADA)),
            st.sampled_from(((), (Hop("front"),), (Hop("front"), Hop("desk", Permissions.parse(["tool:crm.read", "agent:*"]))))),
            st.sampled_from(SCOPES),
            st.sampled_from(ACTS),
        ),
        min_size=1,
        max_size=40,
    ),
)
def test_a_list_shows_what_each_act_by_itself_could_be_allowed(
    policies: set[str], asked: list[tuple[Principal, tuple[Hop, ...], Permissions | None, Act]]
) -> None:
    with TemporaryDirectory() as folder:
        scene = Scene(Path(folder), "\n".join(sorted(policies)))
        for person, hops, scope, act in asked:
            caller = caller_of(scene, person, hops, scope)
            alone, _ = scene.authority._could_allow_alone(caller, act)
            assert scene.authority.could_allow(caller, act) == alone, (sorted(policies), person.subject, act.permission)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_about_one_act_holds_after_acts_of_all_kinds_were_ruled_on(tmp_path: Path, policy: str) -> None:
    scene = Scene(tmp_path, policy)
    callers = [caller_of(scene, person) for person in (ALICE, BEN, NORA)]
    for acts in (ACTS, ACTS[::-1]):
        scene.authority.invalidate()
        found = [(caller, act, scene.authority.could_allow(caller, act)) for caller in callers for act in acts]
        assert all(scene.authority._could_allow_alone(caller, act)[0] == allowed for caller, act, allowed in found)


def test_many_tools_and_many_people_of_one_role_need_one_evaluation(scene: Scene) -> None:
    for number in range(100):
        for person in (ALICE, BEN):
            assert scene.authority.could_allow(caller_of(scene, person), act_of_calling_tool("crm", f"t{number}"))
    assert scene.engine.decided == 1
    scene.authority.invalidate()
    assert scene.authority.could_allow(caller_of(scene, ALICE), TOOLS[0]) and scene.engine.decided == 2


def test_people_share_no_ruling_where_a_policy_tells_them_apart(tmp_path: Path) -> None:
    scene = Scene(tmp_path, '@id("ben") forbid(principal, action, resource) when { principal.subject == "ben" };')
    assert [scene.authority.could_allow(caller_of(scene, person), TOOLS[0]) for person in (ALICE, BEN)] == [True, False]
    keys = {scene.authority.class_rulings.rights_key(caller_of(scene, person)) for person in (ALICE, BEN)}
    assert len(keys) == 2


@pytest.mark.parametrize(
    "policy",
    [
        'forbid(principal is User in User::"acme|{issuer}|ben", action, resource);',
        'forbid(principal, action, resource) when {{ principal is User in User::"acme|{issuer}|ben" }};',
        'forbid(principal, action, resource) when {{ User::"acme|{issuer}|ben" has subject }};',
    ],
)
def test_a_person_whom_a_policy_names_in_any_way_sees_a_list_of_their_own(tmp_path: Path, policy: str) -> None:
    scene = Scene(tmp_path, '@id("ben") ' + policy.format(issuer=BEN.issuer))
    assert [scene.authority.could_allow(caller_of(scene, person), TOOLS[0]) for person in (ALICE, BEN)] == [True, False]


def test_people_with_equal_rights_have_one_key_and_agents_and_others_have_their_own(scene: Scene) -> None:
    key = scene.authority.class_rulings.rights_key
    assert key(caller_of(scene, ALICE)) == key(caller_of(scene, BEN))
    others = [caller_of(scene, RICK), caller_of(scene, ALICE, (Hop("front"),)), caller_of(scene, ALICE, (), SCOPES[1])]
    others.append(caller_of(scene, Principal("evil", ALICE.issuer, "alice", ALICE.roles)))
    assert len({key(each) for each in (caller_of(scene, ALICE), *others)}) == 5


def test_a_kill_and_the_end_of_a_token_count_at_once(scene: Scene) -> None:
    caller = caller_of(scene, ALICE)
    assert scene.authority.could_allow(caller, TOOLS[0]) and scene.authority.could_allow(caller, TOOLS[1])
    scene.kills.enforce_before_persisted(Kill("acme", "k", "server", "crm", "", "x", 1))
    assert not scene.authority.could_allow(caller, TOOLS[1])
    agent = act_of_invoking_agent("sales")
    assert scene.authority.could_allow(caller, agent)
    scene.clock.now = caller.expires + 1
    assert not scene.authority.could_allow(caller, agent)


def test_a_ruling_that_failed_says_nothing_about_other_acts(tmp_path: Path) -> None:
    """One tool that can't be evaluated must not hide those of its class."""
    scene = Scene(tmp_path)
    strange = act_of_calling_tool("crm", "\ud800")
    assert not scene.authority.could_allow(caller_of(scene, ALICE), strange)
    assert scene.authority.could_allow(caller_of(scene, ALICE), TOOLS[0])


def test_no_class_is_used_while_caches_may_be_outdated(scene: Scene) -> None:
    assert scene.authority.could_allow(caller_of(scene, ALICE), TOOLS[0])
    scene.fresh = False
    before = scene.engine.decided
    assert scene.authority.could_allow(caller_of(scene, ALICE), TOOLS[0]) and scene.engine.decided == before + 1


@pytest.mark.parametrize(
    ("condition", "is_class"),
    [
        ("principal.subject == context.task", True),
        ('resource.tenant == "acme"', True),
        ("resource has tenant", True),
        ("resource has permission", False),
        ('resource.permission == "x"', False),
        ('resource in Server::"crm"', False),
        ('action in Action::"callTool"', False),
        ('Tool::"crm.refund" has permission', False),
        ('Tool::"crm.refund" in Server::"crm"', False),
    ],
)
def test_a_condition_about_the_act_leaves_no_class(condition: str, is_class: bool) -> None:
    assert (ActClasses([when(condition)]).class_of(TOOLS[0], ()) is not None) == is_class


@pytest.mark.parametrize(
    ("condition", "tells"),
    [
        ('principal has subject && principal.subject != ""', False),
        ("principal.tenant == context.tenant", False),
        ('principal in Role::"sales"', False),
        ("context.depth <= 4", False),
        ('principal.subject == ""', True),
        ('principal.issuer != "x"', True),
        ('principal == User::"a|b|c"', True),
        ('principal in User::"a|b|c"', True),
        ("principal is User", False),
        ('principal is User in Role::"sales"', False),
        ('principal is User in User::"a|b|c"', True),
        ('principal is User in [User::"a|b|c"]', True),
        ('User::"a|b|c" has subject', True),
        ('context.task != ""', True),
        ("context has task", True),
    ],
)
def test_a_condition_about_a_person_tells_people_apart(condition: str, tells: bool) -> None:
    assert ActClasses([when(condition)]).tells_people_apart == tells


def test_a_scope_that_names_a_person_tells_people_apart() -> None:
    assert ActClasses([parsed('permit(principal == User::"a|b|c", action, resource);')]).tells_people_apart
    assert ActClasses([parsed('permit(principal is User in User::"a|b|c", action, resource);')]).tells_people_apart
    for scope in ('in Role::"sales"', 'is User in Role::"sales"', "is User"):
        assert not ActClasses([parsed(f"permit(principal {scope}, action, resource);")]).tells_people_apart
