"""What each kind of token has to say, and what it means: claim by claim, without signatures."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest

from policies.delegation.permissions import Permissions
from policies.keys.strict_jwt import TokenRefused
from policies.tokens.claims import (
    DEVELOPMENT_ISSUER,
    Claims,
    IdentityAssertionClaims,
    development_claims,
    external_claims,
    hop_claims,
    identity_assertion_claims,
    person_claims,
)
from policies.tokens.issuers import TrustedIssuer
from tests.fakes.issuer import ABSENT, merged
from tests.fakes.tokens import GW

NOW = 1_800_000_000
IDP = TrustedIssuer("https://idp.test", "https://idp.test/jwks")
ACME = TrustedIssuer("https://idp.test", "https://idp.test/jwks", tenant_claim="org", tenants=("acme", "labs"))
KEY = "k" * 43
SCOPE = Permissions.parse(["tool:crm.read", "tool:crm.write"])

TIMES = {"iat": NOW, "exp": NOW + 60}
DEVELOPMENT = {"sub": "alice", "tid": "acme", "aud": GW, "jti": "j1", **TIMES}
HOP = {
    **DEVELOPMENT, "user_iss": "https://idp.test", "client_id": "b", "scope": "tool:crm.write tool:crm.read", "txn": "x1", "task": "T1",
    "act": {"sub": "b", "act": {"sub": "a"}}, "dlg_max": 4, "grant": "g1",
}  # fmt: skip
PERSON = {
    **DEVELOPMENT, "user_iss": "https://idp.test", "client_id": "c_desk", "scope": "tool:crm.write tool:crm.read", "txn": "x1",
    "agent": "desk", "roles": ["sales"],
}  # fmt: skip
EXTERNAL = {"sub": "alice", "jti": "j1", **TIMES}
VOUCHED = {**EXTERNAL, "client_id": "c_desk"}


def development(**given: Any) -> Claims:
    return development_claims(merged(DEVELOPMENT, given), (GW,), NOW)


def hop(**given: Any) -> Claims:
    return hop_claims(merged(HOP, given), (GW,), NOW)


def person(**given: Any) -> Claims:
    return person_claims(merged(PERSON, given), (GW,), NOW)


def external(trusted: TrustedIssuer = IDP, **given: Any) -> Claims:
    return external_claims(merged(EXTERNAL, given), trusted, GW, NOW)


def vouched(trusted: TrustedIssuer = IDP, **given: Any) -> IdentityAssertionClaims:
    return identity_assertion_claims(merged(VOUCHED, given), trusted, NOW)


KINDS: dict[str, Any] = {"development": development, "hop": hop, "person": person, "external": external, "vouched": vouched}
OURS = ("development", "hop", "person")


def reason(kind: str, *trusted: TrustedIssuer, **given: Any) -> str:
    with pytest.raises(TokenRefused) as refused:
        KINDS[kind](*trusted, **given)
    return refused.value.reason


# --- what a good one says


def test_a_development_token_says_person_and_tenant_alone() -> None:
    assert development() == Claims("acme", DEVELOPMENT_ISSUER, "alice", (), None, GW, "", NOW + 60, "j1")
    assert DEVELOPMENT_ISSUER == "interlock-development"  # policies and rows name it
    assert development(roles=["admin"], client_id="x", agent="y", txn="z", grant="g") == development()


def test_a_hop_token_says_person_agents_and_grant() -> None:
    chain = {"actors": ("b", "a"), "grant_id": "g1", "task_id": "T1", "txn": "x1", "kind": "hop"}
    assert hop() == Claims("acme", "https://idp.test", "alice", (), SCOPE, GW, "b", NOW + 60, "j1", **chain)
    assert hop(roles=["admin"]).roles == ()  # the grant's row knows them


def test_a_persons_token_says_to_which_agent_it_was_given() -> None:
    expected = Claims("acme", "https://idp.test", "alice", ("sales",), SCOPE, GW, "c_desk", NOW + 60, "j1", txn="x1", agent="desk")
    assert person() == expected
    assert (expected.kind, person(roles=ABSENT).roles) == ("user", ())


def test_an_external_token_says_who_and_little_else() -> None:
    assert external() == Claims("default", "https://idp.test", "alice", (), None, GW, "", NOW + 60, "j1")
    more = external(roles=["a"], scope="tool:crm.read openid tool:crm.write", client_id="app")
    assert (more.roles, more.scope, more.client_id) == (("a",), SCOPE, "app")


def test_an_assertion_says_for_which_client_and_for_what() -> None:
    assert vouched() == IdentityAssertionClaims("default", "https://idp.test", "alice", (), None, "c_desk", "", NOW + 60, "j1")
    more = vouched(roles=["a"], scope="tool:crm.read openid tool:crm.write", resource=f"{GW}/mcp")
    assert (more.roles, more.scope, more.resource) == (("a",), SCOPE, f"{GW}/mcp")


def test_what_a_token_does_not_say_is_empty() -> None:
    said = {field.name: getattr(external(), field.name) for field in fields(Claims)}
    assert [said[name] for name in ("actors", "grant_id", "task_id", "txn", "thumbprint", "agent")] == [(), "", "", "", "", ""]
    assert said["kind"] == "user"


# --- what each needs

NEEDED = {
    "development": ("sub", "tid", "jti"),
    "hop": ("sub", "tid", "jti", "user_iss", "client_id", "txn", "grant", "task"),
    "person": ("sub", "tid", "jti", "user_iss", "client_id", "txn", "agent"),
    "external": ("sub",),
    "vouched": ("sub", "jti", "client_id"),
}
EACH = [(kind, claim) for kind, claims in NEEDED.items() for claim in claims]


@pytest.mark.parametrize(("kind", "claim"), EACH)
def test_an_identifier_that_is_needed_is_there_and_is_one(kind: str, claim: str) -> None:
    for wrong in (ABSENT, None, 5, ["a"], "a\nb", "x" * 257):
        assert reason(kind, **{claim: wrong}) == claim
    if claim != "task":
        assert reason(kind, **{claim: ""}) == claim


@pytest.mark.parametrize("kind", KINDS)
def test_times_are_needed_and_checked(kind: str) -> None:
    assert reason(kind, iat=ABSENT) == reason(kind, exp=ABSENT) == "times"
    assert reason(kind, iat=NOW - 100, exp=NOW - 31) == "expired"
    assert KINDS[kind](iat=NOW - 100, exp=NOW - 30).expires == NOW - 30


@pytest.mark.parametrize(("kind", "life"), [("development", 86_400), ("hop", 3600), ("person", 3600), ("external", 3600), ("vouched", 600)])
def test_a_token_lives_for_so_long_at_most(kind: str, life: int) -> None:
    assert KINDS[kind](exp=NOW + life).expires == NOW + life
    assert reason(kind, exp=NOW + life + 1) == "lifetime"


@pytest.mark.parametrize("kind", OURS)
def test_a_token_of_ours_is_for_one_of_our_audiences(kind: str) -> None:
    assert reason(kind, aud="https://evil.test") == reason(kind, aud=ABSENT) == reason(kind, aud=[GW, GW]) == "audience"


@pytest.mark.parametrize("kind", OURS)
def test_the_tenant_ends_before_the_separator_of_owners(kind: str) -> None:
    assert reason(kind, tid="acme|https") == "tenant"


def test_a_tool_call_alone_is_no_task() -> None:
    assert hop(task="").task_id == ""


# --- scope


@pytest.mark.parametrize("kind", ["hop", "person"])
def test_an_agents_token_always_says_what_it_may(kind: str) -> None:
    assert reason(kind, scope=ABSENT) == "scope"


@pytest.mark.parametrize("kind", OURS)
def test_our_own_scopes_are_permissions_to_the_letter(kind: str) -> None:
    assert KINDS[kind](scope="").scope == Permissions.parse([])
    assert KINDS[kind](scope="tool:crm.read tool:crm.write").scope == SCOPE
    for wrong in ("openid", "tool:crm.read openid", "tool:a  tool:b", "tool:a ", " ", "tool:a\ttool:b", "TOOL:a"):
        assert reason(kind, scope=wrong) == "scope", wrong
    for no_text in (None, 5, 0, True, False, ["tool:a"], [], {"tool:a": 1}):
        assert reason(kind, scope=no_text) == "scope", no_text


@pytest.mark.parametrize("kind", ["external", "vouched"])
def test_of_a_foreign_scope_only_permissions_count(kind: str) -> None:
    assert KINDS[kind](scope=" tool:crm.read\n offline_access tool:crm.write ").scope == SCOPE
    assert KINDS[kind](scope=["tool:crm.read", "openid", "tool:crm.write"]).scope == SCOPE
    for wrong in (None, 5, [5], {}):
        assert reason(kind, scope=wrong) == "scope"


@pytest.mark.parametrize("said", ["openid profile", "", []])
def test_foreign_scopes_do_not_narrow_a_token_and_give_an_assertion_no_rights(said: object) -> None:
    assert external(scope=said).scope is None
    assert vouched(scope=said).scope == Permissions.parse([])
    assert vouched(TrustedIssuer("https://idp.test", "", scopes="ignore"), scope=said).scope is None
    mapped = TrustedIssuer("https://idp.test", "", scope_map={"profile": SCOPE})
    assert [KINDS[kind](mapped, scope="openid profile").scope for kind in ("external", "vouched")] == [SCOPE, SCOPE]
    assert [KINDS[kind](mapped).scope for kind in ("external", "vouched")] == [Permissions.parse([])] * 2


def test_an_external_token_needs_no_id() -> None:
    assert (external(jti=ABSENT).token_id, external().token_id) == ("", "j1")
    for wrong in (None, "", 5):
        assert reason("external", jti=wrong) == "jti"


def test_an_issuer_may_be_trusted_with_longer_tokens() -> None:
    trusted = TrustedIssuer("https://idp.test", "", token_life=36_000)
    assert external(trusted, exp=NOW + 36_000).expires == NOW + 36_000
    assert reason("external", trusted, exp=NOW + 36_001) == "lifetime"
    assert reason("vouched", trusted, exp=NOW + 601) == "lifetime"


# --- who stands in between, and to which key it is bound


def test_nobody_acts_in_a_token_of_an_identity_provider() -> None:
    for act in ({"sub": "agent"}, None, ""):
        assert reason("external", act=act) == reason("vouched", act=act) == "act"


def test_agents_are_named_outermost_first_up_to_the_depth_that_is_allowed() -> None:
    act: dict[str, Any] = {"sub": "a1"}
    for name in ("a2", "a3", "a4"):
        act = {"sub": name, "act": act}
    assert hop(act=act, dlg_max=4).actors == ("a4", "a3", "a2", "a1")
    assert hop(act={"sub": "a1"}, dlg_max=1).actors == ("a1",)
    assert reason("hop", act=act, dlg_max=3) == "act"
    assert reason("hop", act={"sub": "a5", "act": act}, dlg_max=5) == "act"
    assert reason("hop", dlg_max=5) == "act"


@pytest.mark.parametrize("depth", [ABSENT, None, True, "4", 4.0, 1, 0, -1])
def test_a_chain_without_a_depth_that_holds_it_is_refused(depth: object) -> None:
    assert reason("hop", dlg_max=depth) == "act"


@pytest.mark.parametrize("act", [ABSENT, None, "b", ["b"], {"sub": "b", "act": "a"}, {"sub": "b", "act": []}])
def test_a_chain_of_another_shape_is_refused(act: object) -> None:
    assert reason("hop", act=act) == "act"


@pytest.mark.parametrize("act", [{}, {"sub": ""}, {"sub": 5}, {"sub": "b", "act": {}}, {"sub": "b", "act": {"sub": None}}])
def test_every_agent_of_a_chain_has_a_name(act: object) -> None:
    assert reason("hop", act=act) == "sub"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "vouched"])
def test_a_token_is_bound_to_a_key_or_to_nothing(kind: str) -> None:  # attack TOK-12
    assert KINDS[kind]().thumbprint == ""
    assert KINDS[kind](cnf={"jkt": KEY}).thumbprint == KEY
    for wrong in ({"jkt": KEY[1:]}, {"jkt": KEY + "k"}, {"jkt": ["k"] * 43}, {"x5t#S256": KEY}, {"jkt": KEY, "kid": "k"}, {}, None, KEY, 5):
        assert reason(kind, cnf=wrong) == "cnf", wrong


def test_an_assertion_is_bound_to_nothing() -> None:
    for cnf in ({"jkt": KEY}, {}, None):
        assert reason("vouched", cnf=cnf) == "cnf"


def test_an_optional_identifier_is_one_where_it_is_there() -> None:
    for wrong in ("", None, 5, "a\nb"):
        assert reason("external", client_id=wrong) == "client_id"
        assert reason("vouched", resource=wrong) == "resource"


# --- tenants and roles, as an issuer is trusted with them


@pytest.mark.parametrize("kind", ["external", "vouched"])
def test_a_tenant_is_what_the_operator_says_before_what_the_token_says(kind: str) -> None:
    one = TrustedIssuer("https://idp.test", "", tenants=("labs",))
    assert KINDS[kind](one, org="acme", tid="acme").tenant == "labs"
    assert KINDS[kind](IDP, org="acme", tid="acme", tenant="acme").tenant == "default"
    assert KINDS[kind](ACME, org="labs").tenant == "labs"
    for wrong in ("evil", "default", "ACME", "acme ", "ac|me"):
        assert reason(kind, ACME, org=wrong) == "tenant"
    for wrong in (ABSENT, "", None, 5, ["acme"]):
        assert reason(kind, ACME, org=wrong) == "org"
    anywhere = TrustedIssuer("https://idp.test", "", tenant_claim="org")
    assert KINDS[kind](anywhere, org="evil").tenant == "evil"
    assert reason(kind, anywhere, org="a|b") == "tenant"


ROLES: dict[str, tuple[object, tuple[str, ...]]] = {
    "absent": (ABSENT, ()),
    "null": (None, ()),
    "a list": (["a", "b c"], ("a", "b c")),
    "an empty list": ([], ()),
    "a text": (" a  b\tc ", ("a", "b", "c")),
    "an empty text": ("", ()),
    "as many as can be": ([f"r{n}" for n in range(200)], tuple(f"r{n}" for n in range(200))),
    "the longest": (["r" * 256], ("r" * 256,)),
}
NO_ROLES = [5, True, 0, {"a": 1}, ["a", 5], ["a", ["b"]], [None], [""], ["a\nb"], ["r" * 257], ["r"] * 201, " ".join(["r"] * 201)]


@pytest.mark.parametrize("kind", ["person", "external", "vouched"])
@pytest.mark.parametrize(("said", "roles"), ROLES.values(), ids=ROLES.keys())
def test_roles_are_a_list_or_a_text(kind: str, said: object, roles: tuple[str, ...]) -> None:
    assert KINDS[kind](roles=said).roles == roles


@pytest.mark.parametrize("kind", ["person", "external", "vouched"])
@pytest.mark.parametrize("said", NO_ROLES, ids=range(len(NO_ROLES)))
def test_roles_of_another_shape_are_refused(kind: str, said: object) -> None:
    assert reason(kind, roles=said) == "roles"


PLACES: dict[str, tuple[str, Mapping[str, Any], tuple[str, ...]]] = {
    "a name": ("groups", {"groups": ["a"], "roles": ["b"]}, ("a",)),
    "a path": ("realm_access.roles", {"realm_access": {"roles": ["a"]}, "roles": ["b"]}, ("a",)),
    "a long path": ("resource_access.gw.roles", {"resource_access": {"gw": {"roles": ["a"]}, "other": {"roles": ["b"]}}}, ("a",)),
    "a name with dots before a path": ("a.roles", {"a.roles": ["a"], "a": {"roles": ["b"]}}, ("a",)),
    "a path that ends early": ("a.b.roles", {"a": {"roles": ["b"]}, "roles": ["b"]}, ()),
    "a path through a text": ("a.roles", {"a": "roles"}, ()),
    "nothing": ("groups", {"roles": ["b"]}, ()),
}


@pytest.mark.parametrize("kind", ["external", "vouched"])
@pytest.mark.parametrize(("claim", "said", "roles"), PLACES.values(), ids=PLACES.keys())
def test_roles_stand_where_the_operator_says(kind: str, claim: str, said: Mapping[str, Any], roles: tuple[str, ...]) -> None:
    trusted = TrustedIssuer("https://idp.test", "", roles_claims=(claim,))
    assert KINDS[kind](trusted, **said).roles == roles
