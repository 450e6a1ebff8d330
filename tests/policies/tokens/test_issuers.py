"""How claims of identity providers are read: scopes, roles, subjects and audiences, as the operator says."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.cedar.role_rules import ACTION_BY_PREFIX
from policies.delegation.permissions import ALL_PERMISSIONS, KINDS, NO_PERMISSIONS, Permissions, is_meant_as_permission
from policies.keys.strict_jwt import TokenRefused
from policies.tokens.issuers import (
    ROLES_MAX,
    TrustedIssuer,
    audience_of,
    claim_at,
    client_of,
    explain_refusal,
    roles_of,
    scope_covering,
    scope_of,
    subject_of,
)

permissions = st.builds(
    "{}:{}".format, st.sampled_from(sorted(KINDS)), st.sampled_from(["crm", "crm.read", "crm.*", "*", "a/b"])
) | st.just("*")

GW = "https://gw.test"


def of(*texts: str) -> Permissions:
    return Permissions.parse(texts)


def issuer(**given: Any) -> TrustedIssuer:
    return TrustedIssuer("https://idp.test", "https://idp.test/jwks", **given)


MAPPED = {"crm.read": of("tool:crm.read"), "crm.write": of("tool:crm.*", "agent:crm"), "all": ALL_PERMISSIONS}
MAP = issuer(scope_map=MAPPED)


def refused(reason: str, read: Any, *given: Any) -> bool:
    with pytest.raises(TokenRefused) as refusal:
        read(*given)
    assert refusal.value.reason == reason
    return True


def test_an_issuer_is_trusted_with_as_little_as_can_be() -> None:
    plain = issuer()
    assert (plain.audience, plain.roles_claims, plain.tenant_claim, plain.tenants, plain.id_jag) == ("", ("roles",), "", (), False)
    assert (plain.other_audiences, plain.default_roles, plain.scopes, plain.scope_map) == ((), (), "permissions", None)
    assert (plain.token_life, plain.subject_claim) == (3600, "sub")
    assert plain.algorithms == ("ES256", "RS256")
    assert (plain.issuer, plain.jwks_url) == ("https://idp.test", "https://idp.test/jwks")


# --- scopes

FOREIGN = [
    "openid",
    "profile email",
    "offline_access",
    "access_as_user",
    "read:crm write:crm",
    "https://idp.test/tool:crm",
    "user:email",
    "agent",
]


@pytest.mark.parametrize("scope", [*FOREIGN, "", " "])
def test_scopes_that_are_no_permissions_say_nothing(scope: str) -> None:
    assert scope_of({"scope": scope}, issuer()) is None
    assert scope_of({"scp": scope.split()}, issuer()) is None


@pytest.mark.parametrize("scope", FOREIGN)
def test_beside_a_permission_foreign_scopes_change_nothing(scope: str) -> None:
    for text in (f"{scope} tool:crm.read", f"tool:crm.read {scope}"):
        assert scope_of({"scope": text}, issuer()) == of("tool:crm.read")


@given(st.frozensets(permissions, min_size=1, max_size=4), st.lists(st.sampled_from(FOREIGN), max_size=4), st.randoms())
def test_a_token_with_permissions_has_these_and_no_more(held: frozenset[str], foreign: list[str], random: Any) -> None:
    scopes = [*held, *(scope for text in foreign for scope in text.split())]
    random.shuffle(scopes)
    assert scope_of({"scope": " ".join(scopes)}, issuer()) == Permissions(held)
    half = len(scopes) // 2
    assert scope_of({"scope": " ".join(scopes[:half]), "scp": scopes[half:]}, issuer()) == Permissions(held)


@pytest.mark.parametrize("scope", ["tool:", "tool:x*y read:crm", "TOOL:crm.read", "Tool:crm.read", "agent:sales*", "tool:crm.**"])
def test_a_malformed_permission_narrows_to_nothing(scope: str) -> None:
    assert scope_of({"scope": scope}, issuer()) == NO_PERMISSIONS
    assert scope_of({"scope": f"openid {scope}"}, issuer()) == NO_PERMISSIONS


def test_without_scopes_a_token_does_not_narrow() -> None:
    assert scope_of({}, issuer()) is None
    assert scope_of({"scope": "tool:crm.read"}, issuer(scopes="ignore")) is None
    assert scope_of({"scope": 5}, issuer(scopes="ignore")) is None


@pytest.mark.parametrize("value", [None, 5, True, {}, ["a", 5], [None], {"a": "b"}])
@pytest.mark.parametrize("claim", ["scope", "scp"])
def test_scopes_of_another_shape_are_refused(claim: str, value: object) -> None:
    assert refused("scope", scope_of, {claim: value}, issuer())
    assert refused("scope", scope_of, {"scope": "tool:crm.read", "scp": "openid", claim: value}, MAP)


def test_with_a_map_scopes_govern() -> None:
    assert scope_of({"scope": "openid crm.read"}, MAP) == of("tool:crm.read")
    assert scope_of({"scp": ["crm.read", "crm.write"]}, MAP) == of("tool:crm.read", "tool:crm.*", "agent:crm")
    assert scope_of({"scope": "crm.read tool:mail.send"}, MAP) == of("tool:crm.read", "tool:mail.send")
    for nothing in ({}, {"scope": ""}, {"scope": "openid profile"}, {"scp": []}):
        assert scope_of(nothing, MAP) == NO_PERMISSIONS


def test_a_scope_that_looks_like_a_permission_may_be_mapped() -> None:
    trusted = issuer(scope_map={"audit:read": of("tool:crm.read")})
    assert scope_of({"scope": "audit:read"}, trusted) == of("tool:crm.read")


def test_the_scope_to_ask_for_is_the_narrowest_that_covers() -> None:
    assert scope_covering(MAPPED, "tool:crm.read") == "crm.read"
    assert scope_covering(MAPPED, "tool:crm.drop") == "crm.write"
    assert scope_covering(MAPPED, "tool:mail.send") == "all"
    assert scope_covering({"crm.read": of("tool:crm.read")}, "tool:mail.send") == ""
    assert scope_covering({"b": of("tool:crm.*"), "a": of("tool:crm.*")}, "tool:crm.read") == "a"


def test_every_kind_of_permission_is_known_as_one() -> None:
    assert {family.partition(":")[0] for family in ACTION_BY_PREFIX} == KINDS
    assert all(is_meant_as_permission(f"{kind}:x") and not is_meant_as_permission(kind) for kind in KINDS)
    assert is_meant_as_permission("*") and not is_meant_as_permission("read:crm")


# --- roles


def test_roles_of_several_claims_come_together_each_once() -> None:
    trusted = issuer(roles_claims=("realm_access.roles", "resource_access.gw.roles", "groups"), default_roles=("member", "a"))
    said = {"realm_access": {"roles": ["a", "b"]}, "resource_access": {"gw": {"roles": ["c", "a"]}}, "groups": "d b"}
    assert roles_of(said, trusted) == ("a", "b", "c", "d", "member")
    assert roles_of({}, trusted) == ("member", "a")
    assert len(roles_of({**said, "groups": [f"r{n}" for n in range(ROLES_MAX)]}, trusted)) == ROLES_MAX + 4
    assert refused("roles", roles_of, {**said, "groups": ["r"] * (ROLES_MAX + 1)}, trusted)


@pytest.mark.parametrize("elsewhere", [{"_claim_names": {"groups": "src1"}}, {"hasgroups": True}])
def test_a_token_that_only_says_where_groups_are_is_refused(elsewhere: Mapping[str, Any]) -> None:
    trusted = issuer(roles_claims=("roles", "groups"))
    assert refused("roles-elsewhere", roles_of, {"roles": ["a"], **elsewhere}, trusted)
    assert roles_of({"roles": ["a"], **elsewhere}, issuer()) == ("a",)
    assert roles_of({"groups": ["g"], **elsewhere}, trusted) == ("g",)
    for nothing in ({"_claim_names": {"emails": "src1"}}, {"_claim_names": "groups"}, {"hasgroups": "true"}, {"hasgroups": False}):
        assert roles_of(nothing, trusted) == ()


CLAIMS = {
    "https://gw.test/roles": ["by address"],
    "resource_access": {"https://gw.example.com": {"roles": ["dotted"]}, "https://gw": {"roles": ["shorter"]}},
    "a": {"b": {"c": 1}, "b.c": 2},
    "a.b": {"c": 3},
    "text": "roles",
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("https://gw.test/roles", ["by address"]),
        ("resource_access.https://gw.example.com.roles", ["dotted"]),
        ("a.b.c", 3),  # the longest name that is there
        ("a.b", {"c": 3}),
        ("text.roles", None),
        ("none.roles", None),
        ("a.none", None),
        (".a", None),
        ("a.", None),
        ("", None),
    ],
)
def test_a_claim_is_found_by_its_name_or_its_path(path: str, found: object) -> None:
    assert claim_at(CLAIMS, path) == found


# --- who, whose client, for whom


def test_the_subject_is_the_claim_that_the_operator_names() -> None:
    said = {"sub": "pairwise", "oid": "0f3c", "profile": {"id": "p1"}}
    assert subject_of(said, issuer()) == "pairwise"
    assert subject_of(said, issuer(subject_claim="oid")) == "0f3c"
    assert subject_of(said, issuer(subject_claim="profile.id")) == "p1"
    for wrong in ("", None, 5, ["a"], "a\nb", "x" * 257):
        assert refused("oid", subject_of, {"sub": "alice", "oid": wrong}, issuer(subject_claim="oid"))


@pytest.mark.parametrize("verified", [False, None, "true", 1])
def test_an_address_of_mail_is_a_subject_only_where_it_was_verified(verified: object) -> None:
    trusted = issuer(subject_claim="email")
    assert subject_of({"email": "a@b.example", "email_verified": True}, trusted) == "a@b.example"
    assert refused("email", subject_of, {"email": "a@b.example", "email_verified": verified}, trusted)
    assert refused("email", subject_of, {"email": "a@b.example"}, trusted)


def test_the_client_is_named_by_whichever_claim_has_it() -> None:
    for claim in ("client_id", "azp", "cid", "appid"):
        assert client_of({claim: "app"}) == "app"
        assert refused(claim, client_of, {claim: 5})
    assert client_of({"azp": "b", "client_id": "a"}) == "a"
    assert client_of({}) == ""


# attack TOK-07
def test_an_audience_beside_ours_has_to_be_named_by_the_operator() -> None:
    assert audience_of({"aud": [GW, "account"]}, [GW], ["account"]) == GW
    assert audience_of({"aud": ["account", GW]}, [GW], ["account", "other"]) == GW
    assert audience_of({"aud": GW}, [GW], ["account"]) == audience_of({"aud": [GW]}, [GW], []) == GW
    for aud in ([GW, "account"], [GW, "evil"], [GW, "account", "evil"]):
        assert refused("audience", audience_of, {"aud": aud}, [GW], ["evil2"])
    for aud in (["account"], "account", [], None, 5, [GW, GW], [GW, f"{GW}/mcp"], [GW, 5], [GW] + ["account"] * 20, [f"{GW}/"]):
        assert refused("audience", audience_of, {"aud": aud}, [GW, f"{GW}/mcp"], ["account"])
    assert refused("audience", audience_of, {}, [GW], ["account"])


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("audience", "other_audiences"),
        ("lifetime", "7200 s, accepted are 3600; see token_life"),
        ("roles", "roles_claim"),
        ("roles-elsewhere", "more groups"),
        ("sub", "subject_claim"),
        ("tenant", "tenant_claim"),
        ("org", "tenant_claim"),
        ("act", "'act'"),
        ("type", "see typ"),
        ("id-token", "no client but its audience, like a token for a client such as an ID token"),
    ],
)
def test_the_operator_is_told_what_decides(reason: str, told: str) -> None:
    claims = {"aud": ["x" * 1000], "iat": 1, "exp": 7201}
    said = explain_refusal(reason, claims, issuer(tenant_claim="org"), GW)
    assert said.startswith("a token of https://idp.test: ") and len(said) <= 500
    assert told in said or reason == "audience"
    assert "other_audiences" in explain_refusal("audience", {"aud": ["x"]}, issuer(), GW)
    for claim, value, why in (("nonce", "n", "it has 'nonce'"), ("typ", "ID", "its 'typ' is ID"), ("token_use", "id", "its 'token_use'")):
        assert why in explain_refusal("id-token", {**claims, claim: value}, issuer(), GW)
