"""Identity providers of people: what the operator trusts each one with, and how the claims of its tokens are read."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from policies.delegation.permissions import BadPermission, Permissions, is_meant_as_permission
from policies.keys.jwks import ALGORITHMS, is_identifier
from policies.keys.strict_jwt import ACCESS_TOKEN_TYPES, TokenRefused, identifier_claim

TOKEN_LIFE_MAX = 3600.0  # seconds between `iat` and `exp`, unless the operator accepts more
ROLES_MAX = 200  # of one claim
ROLES_ELSEWHERE = "roles-elsewhere"  # the reason of a refusal
AUDIENCES_MAX = 20
DETAIL_MAX = 500  # characters of an explanation
SCOPE_CLAIMS = ("scope", "scp")  # RFC 9068 s2.2.3; Entra ID (a text) and Okta (a list)
# Claims of tokens that are for a client and not for an API: OpenID Connect Core s2 and s3.3.2.11, security events such as logout tokens
# (RFC 8417). Two providers name the use of a token in a claim: Keycloak in `typ`, Cognito in `token_use`.
CLIENT_TOKEN_MARKS = ("at_hash", "c_hash", "s_hash", "events")
KEYCLOAK_CLIENT_TYPES = ("ID", "Refresh", "Offline", "Logout")
CLIENT_ID_CLAIMS = ("client_id", "azp", "cid", "appid")  # RFC 9068 s2.2; OpenID Connect; Okta; Entra ID v1


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An identity provider of people. An empty `audience` is the gateway's public URL; an empty `tenant_claim` the tenant `default`.

    Claims are named as `claim_at` reads them: a name, or a path with dots such as `realm_access.roles`.
    """

    issuer: str
    jwks_url: str
    audience: str = ""
    other_audiences: tuple[str, ...] = ()  # that a token may name beside the gateway
    algorithms: tuple[str, ...] = tuple(sorted(ALGORITHMS))
    typ: Literal["any", "at+jwt"] = "any"  # at+jwt: only tokens whose header says that they are for an API (RFC 9068)
    token_life: float = TOKEN_LIFE_MAX  # seconds
    subject_claim: str = "sub"
    roles_claims: tuple[str, ...] = ("roles",)
    default_roles: tuple[str, ...] = ()  # of every person of this issuer
    tenant_claim: str = ""
    tenants: tuple[str, ...] = ()  # the only tenants it may speak for; empty: any. A single one needs no claim
    scopes: Literal["permissions", "ignore"] = "permissions"
    scope_map: Mapping[str, Permissions] | None = None  # the permissions that its own scopes grant
    id_jag: bool = False  # whether its identity assertions are exchanged for the gateway's tokens


def check_is_access_token(typ: str, claims: Mapping[str, Any], trusted: TrustedIssuer) -> None:
    """Raises TokenRefused for a token that is not for an API. `typ` is that of its header, where `jwt` or an empty one says nothing."""
    if typ in ACCESS_TOKEN_TYPES:
        return
    if trusted.typ == "at+jwt":
        raise TokenRefused("type")
    if client_token_evidence(claims):
        raise TokenRefused("id-token")


def client_token_evidence(claims: Mapping[str, Any]) -> str:
    """The sign that a token is for a client: an ID, refresh or logout token. Empty where there is none.

    An ID token may have no such claim. It names the client as its audience and has no scope. So an access token without `at+jwt` must have
    a scope, or a client other than its audience.
    """
    if claims.get("token_use", "access") != "access":
        return "its 'token_use' is not access"
    if claims.get("typ") in KEYCLOAK_CLIENT_TYPES:
        return f"its 'typ' is {claims['typ']}"
    if found := next((name for name in CLIENT_TOKEN_MARKS if name in claims), ""):
        return f"it has {found!r}"
    if claims.get("typ") == "Bearer":  # Keycloak's access tokens had a nonce until version 24
        return ""
    if "nonce" in claims:
        return "it has 'nonce'"
    if any(name in claims for name in SCOPE_CLAIMS):
        return ""
    if "auth_time" in claims:
        return "it has 'auth_time' and no scope"
    audience, client = claims.get("aud"), client_of(claims)
    itself = client == audience or (isinstance(audience, list) and client in audience)
    return "" if client and not itself else "it has no scope, and no client but its audience"


def scope_of(claims: Mapping[str, Any], trusted: TrustedIssuer) -> Permissions | None:
    """The permissions that the token's scopes leave; None where they do not narrow. Raises TokenRefused.

    Scopes that are permissions narrow. Without a `scope_map`, other scopes are ignored, so `openid profile` alone does not narrow. With
    one, its scopes grant their permissions, and a token with none of them may do nothing.
    """
    if trusted.scopes == "ignore":
        return None
    named = [scope for claim in SCOPE_CLAIMS if claim in claims for scope in _parse_scopes(claims[claim])]
    stands_for = trusted.scope_map or {}
    own_scopes = [scope for scope in named if scope not in stands_for and is_meant_as_permission(scope)]
    if trusted.scope_map is None and not own_scopes:
        return None
    return Permissions(_well_formed_permissions(own_scopes).union(*(stands_for[scope].patterns for scope in named if scope in stands_for)))


def scope_covering(scope_map: Mapping[str, Permissions], permission: str) -> str:
    """The scope that covers the permission and permits the least; empty where none covers it."""
    best = ""
    for scope in sorted(name for name, permitted in scope_map.items() if permitted.covers(permission)):
        if not best or (scope_map[scope].is_within(scope_map[best]) and not scope_map[best].is_within(scope_map[scope])):
            best = scope
    return best


def roles_of(claims: Mapping[str, Any], trusted: TrustedIssuer) -> tuple[str, ...]:
    """The roles in the claims, in order and each once, and the default ones. Raises TokenRefused.

    Refuses a token that only refers to a list of roles elsewhere: a policy may forbid something to a role that is not seen.
    """
    listed: list[str] = []
    for claim in trusted.roles_claims:
        value = claim_at(claims, claim)
        if value is None and is_overage_claim(claims, claim):
            raise TokenRefused(ROLES_ELSEWHERE)
        listed += parse_roles(value)
    return tuple(dict.fromkeys((*listed, *trusted.default_roles)))


def is_overage_claim(claims: Mapping[str, Any], claim: str) -> bool:
    """Whether the token omits the claim because it is too long (OpenID Connect Core 5.6.2; Entra ID's `hasgroups`)."""
    names = claims.get("_claim_names")
    return (isinstance(names, Mapping) and claim in names) or (claim == "groups" and claims.get("hasgroups") is True)


def parse_roles(value: object) -> tuple[str, ...]:
    """Roles as a list of identifiers, or as a text separated by spaces. Raises TokenRefused."""
    roles = value.split() if isinstance(value, str) else value
    if roles is None:
        return ()
    if not isinstance(roles, list) or len(roles) > ROLES_MAX or not all(is_identifier(role) for role in roles):
        raise TokenRefused("roles")
    return tuple(roles)


def subject_of(claims: Mapping[str, Any], trusted: TrustedIssuer) -> str:
    """The person that the token is about. An email address counts only if the issuer verified it. Raises TokenRefused."""
    name = trusted.subject_claim
    subject = claim_at(claims, name)
    if not is_identifier(subject) or (name == "email" and claims.get("email_verified") is not True):
        raise TokenRefused(name)
    return str(subject)


def client_of(claims: Mapping[str, Any]) -> str:
    """The client that the token was issued to, by any of the claims for it; empty where none is present. Raises TokenRefused."""
    return next((identifier_claim(claims, name) for name in CLIENT_ID_CLAIMS if name in claims), "")


def audience_of(claims: Mapping[str, Any], audiences: Collection[str], others: Collection[str]) -> str:
    """The audience among `audiences` that the token names, exactly one, and beside it only `others`. Raises TokenRefused."""
    value = claims.get("aud")
    listed = value if isinstance(value, list) else [value]
    if not 0 < len(listed) <= AUDIENCES_MAX or not all(isinstance(each, str) for each in listed):
        raise TokenRefused("audience")
    accepted = [each for each in listed if each in audiences]
    if len(accepted) != 1 or any(each not in others for each in listed if each not in audiences):
        raise TokenRefused("audience")
    return str(accepted[0])


def claim_at(claims: Mapping[str, Any], path: str) -> object:
    """The claim with that name, or the one at that dotted path; None if there is none.

    A step may contain dots, as in `resource_access.https://gw.example.roles`: the longest name that exists is followed.
    """
    if path in claims:
        return claims[path]
    dot = path.rfind(".")
    while dot > 0:
        below = claims.get(path[:dot])
        if isinstance(below, Mapping):
            return claim_at(below, path[dot + 1 :])
        dot = path.rfind(".", 0, dot)
    return None


def explain_refusal(reason: str, claims: Mapping[str, Any], trusted: TrustedIssuer, public_url: str) -> str:
    """Explains a refusal to the operator: the token's value, what is accepted, and the setting that decides."""
    match reason:
        case "audience":
            problem = f"aud is {claims.get('aud')!r}, accepted is {trusted.audience or public_url!r}; see audience and other_audiences"
        case "type":
            problem = "the typ of its header is not at+jwt; see typ"
        case "id-token":
            problem = f"{client_token_evidence(claims)}, like a token for a client such as an ID token; send an access token, or see typ"
        case "lifetime":
            life = claims["exp"] - claims["iat"]
            problem = f"it lives for {life:.0f} s, accepted are {trusted.token_life:.0f}; see token_life"
        case "roles":
            problem = f"{', '.join(trusted.roles_claims)} is no list of at most {ROLES_MAX} names; see roles_claim"
        case "roles-elsewhere":
            problem = "the person is in more groups than the token has room for; see docs/providers.md"
        case trusted.subject_claim:
            problem = f"it has no usable {trusted.subject_claim!r}; see subject_claim"
        case "tenant" | trusted.tenant_claim:
            problem = f"its {trusted.tenant_claim!r} names no tenant of this issuer; see tenant_claim and tenants"
        case _:
            problem = f"its {reason!r} can't be accepted"
    return f"a token of {trusted.issuer}: {problem}"[:DETAIL_MAX]


def _parse_scopes(value: object) -> list[str]:
    """Scopes as a list, or as a text separated by spaces. Raises TokenRefused."""
    scopes = value.split() if isinstance(value, str) else value
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        raise TokenRefused("scope")
    return scopes


def _well_formed_permissions(scopes: Iterable[str]) -> frozenset[str]:
    """The valid permissions among the scopes. An invalid one still narrows, to nothing."""
    found: set[str] = set()
    for scope in scopes:
        try:
            found |= Permissions.parse([scope]).patterns
        except BadPermission:
            continue
    return frozenset(found)
