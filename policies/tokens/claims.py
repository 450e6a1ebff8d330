"""The claims of verified tokens: a person, and the agents that act for the person."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from policies.delegation.chain import DEPTH_MAX
from policies.delegation.permissions import NO_PERMISSIONS, BadPermission, Permissions
from policies.keys.strict_jwt import TokenRefused, check_times, identifier_claim, single_audience
from policies.tokens.issuers import TOKEN_LIFE_MAX, TrustedIssuer, client_of, parse_roles, roles_of, scope_of, subject_of

DEVELOPMENT_ISSUER = "interlock-development"
DEVELOPMENT_LIFE = 86_400.0  # seconds between `iat` and `exp`
ASSERTION_LIFE = 600.0


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a verified token. `roles` is empty where settings or the grant's row have them: development and hop tokens."""

    tenant: str
    issuer: str  # of the person, also for a hop token
    subject: str
    roles: tuple[str, ...]
    scope: Permissions | None  # None: the claim is absent, the token does not narrow
    audience: str  # the one of the gateway's that it was accepted for
    client_id: str
    expires: float  # seconds since 1970
    token_id: str
    actors: tuple[str, ...] = ()  # outermost first
    grant_id: str = ""
    task_id: str = ""
    txn: str = ""
    kind: Literal["user", "hop"] = "user"
    thumbprint: str = ""  # of the key that the token is bound to (RFC 9449), if any
    agent: str = ""  # the agent that a person's token was issued to, for an identity assertion
    scope_map: Mapping[str, Permissions] | None = None  # of the issuer, to name the scope that a token lacks
    session_id: str = ""  # of a person who signed in at the gateway


@dataclass(frozen=True, slots=True)
class IdentityAssertionClaims:
    """The claims of an identity assertion: the person, the client, and the resource and scope."""

    tenant: str
    issuer: str
    subject: str
    roles: tuple[str, ...]
    scope: Permissions | None
    client_id: str
    resource: str  # empty: the assertion names none
    expires: float
    token_id: str


def development_claims(claims: Mapping[str, Any], audiences: Collection[str], now: float) -> Claims:
    """The claims of a token of the development issuer. Raises TokenRefused."""
    return Claims(
        tenant=_tenant_claim(claims, "tid"),
        issuer=DEVELOPMENT_ISSUER,
        subject=identifier_claim(claims, "sub"),
        roles=(),
        scope=_own_scope(claims) if "scope" in claims else None,
        audience=single_audience(claims, audiences),
        client_id="",
        expires=check_times(claims, now, DEVELOPMENT_LIFE),
        token_id=identifier_claim(claims, "jti"),
        thumbprint=_bound_key_thumbprint(claims),
    )


def hop_claims(claims: Mapping[str, Any], audiences: Collection[str], now: float) -> Claims:
    """The claims of a token that the gateway issued to an agent. All of them are required. Raises TokenRefused."""
    depth = claims.get("dlg_max")
    actors = _actors(claims.get("act"))
    if isinstance(depth, bool) or not isinstance(depth, int) or not len(actors) <= depth <= DEPTH_MAX:
        raise TokenRefused("act")
    return Claims(
        tenant=_tenant_claim(claims, "tid"),
        issuer=identifier_claim(claims, "user_iss"),
        subject=identifier_claim(claims, "sub"),
        roles=(),
        scope=_own_scope(claims),
        audience=single_audience(claims, audiences),
        client_id=identifier_claim(claims, "client_id"),
        expires=check_times(claims, now, TOKEN_LIFE_MAX),
        token_id=identifier_claim(claims, "jti"),
        actors=actors,
        grant_id=identifier_claim(claims, "grant"),
        task_id=identifier_claim(claims, "task") if claims.get("task") != "" else "",  # a tool call by itself has no task
        txn=identifier_claim(claims, "txn"),
        kind="hop",
        thumbprint=_bound_key_thumbprint(claims),
    )


def person_claims(claims: Mapping[str, Any], audiences: Collection[str], now: float) -> Claims:
    """The claims of a token that the gateway issued to an agent for an identity assertion. Raises TokenRefused."""
    return Claims(
        tenant=_tenant_claim(claims, "tid"),
        issuer=identifier_claim(claims, "user_iss"),
        subject=identifier_claim(claims, "sub"),
        roles=parse_roles(claims.get("roles")),
        scope=_own_scope(claims),
        audience=single_audience(claims, audiences),
        client_id=identifier_claim(claims, "client_id"),
        expires=check_times(claims, now, TOKEN_LIFE_MAX),
        token_id=identifier_claim(claims, "jti"),
        txn=identifier_claim(claims, "txn"),
        thumbprint=_bound_key_thumbprint(claims),
        agent=identifier_claim(claims, "agent"),
    )


def session_claims(claims: Mapping[str, Any], audiences: Collection[str], now: float) -> Claims:
    """The claims of a token that the gateway issued to a client for a person who signed in. Raises TokenRefused."""
    return Claims(
        tenant=_tenant_claim(claims, "tid"),
        issuer=identifier_claim(claims, "user_iss"),
        subject=identifier_claim(claims, "sub"),
        roles=parse_roles(claims.get("roles")),
        scope=_own_scope(claims),
        audience=single_audience(claims, audiences),
        client_id=identifier_claim(claims, "client_id"),
        expires=check_times(claims, now, TOKEN_LIFE_MAX),
        token_id=identifier_claim(claims, "jti"),
        thumbprint=_bound_key_thumbprint(claims),
        session_id=identifier_claim(claims, "sid"),
    )


def identity_assertion_claims(claims: Mapping[str, Any], trusted: TrustedIssuer, now: float) -> IdentityAssertionClaims:
    """The claims of an identity assertion whose audience was verified. Raises TokenRefused."""
    for unwanted in ("act", "cnf"):  # the client authenticates by itself, and no agent may act in between
        if unwanted in claims:
            raise TokenRefused(unwanted)
    return IdentityAssertionClaims(
        tenant=tenant_of_issuer(claims, trusted),
        issuer=trusted.issuer,
        subject=subject_of(claims, trusted),
        roles=roles_of(claims, trusted),
        scope=_assertion_scope(claims, trusted),
        client_id=identifier_claim(claims, "client_id"),
        resource=identifier_claim(claims, "resource") if "resource" in claims else "",
        expires=check_times(claims, now, ASSERTION_LIFE),
        token_id=identifier_claim(claims, "jti"),
    )


def external_claims(claims: Mapping[str, Any], trusted: TrustedIssuer, audience: str, now: float) -> Claims:
    """The claims of an identity provider's token for a person, with the verified `audience`. Raises TokenRefused.

    Refuses a token with an actor (`act`), since every delegation begins at the gateway.
    """
    if "act" in claims:
        raise TokenRefused("act")
    return Claims(
        tenant=tenant_of_issuer(claims, trusted),
        issuer=trusted.issuer,
        subject=subject_of(claims, trusted),
        roles=roles_of(claims, trusted),
        scope=scope_of(claims, trusted),
        audience=audience,
        client_id=client_of(claims),
        expires=check_times(claims, now, trusted.token_life),
        token_id=identifier_claim(claims, "jti")
        if "jti" in claims
        else "",  # several providers leave it out, and no replay rule needs it here
        scope_map=trusted.scope_map,
        thumbprint=_bound_key_thumbprint(claims),
    )


def _assertion_scope(claims: Mapping[str, Any], trusted: TrustedIssuer) -> Permissions | None:
    """The scope of an assertion. Unlike for a token, scopes that contain no permission permit nothing."""
    scope = scope_of(claims, trusted)
    return NO_PERMISSIONS if scope is None and "scope" in claims and trusted.scopes == "permissions" else scope


def _bound_key_thumbprint(claims: Mapping[str, Any]) -> str:
    """The thumbprint of the key that a token is bound to; empty for a bearer token.

    Raises TokenRefused for another kind of binding: accepting such a token as a bearer token would be a downgrade (RFC 9449 s7.2).
    """
    if "cnf" not in claims:
        return ""
    bound = claims["cnf"]
    if not isinstance(bound, dict) or bound.keys() != {"jkt"} or not isinstance(bound["jkt"], str) or len(bound["jkt"]) != 43:
        raise TokenRefused("cnf")
    return bound["jkt"]


def tenant_of_issuer(claims: Mapping[str, Any], trusted: TrustedIssuer) -> str:
    """The tenant by the issuer's claim, if the issuer may speak for it; without a claim its only tenant, or the default one."""
    if not trusted.tenant_claim:
        return trusted.tenants[0] if trusted.tenants else "default"
    tenant = _tenant_claim(claims, trusted.tenant_claim)
    if trusted.tenants and tenant not in trusted.tenants:
        raise TokenRefused("tenant")
    return tenant


def _tenant_claim(claims: Mapping[str, Any], name: str) -> str:
    tenant = identifier_claim(claims, name)
    if "|" in tenant:  # the tenant is the first part of every owner key and ends at the first |
        raise TokenRefused("tenant")
    return tenant


def _own_scope(claims: Mapping[str, Any]) -> Permissions:
    scope: Any = claims.get("scope")
    try:
        return Permissions.parse(scope.split(" ") if scope != "" else ())
    except (AttributeError, BadPermission):
        raise TokenRefused("scope") from None


def _actors(act: object) -> tuple[str, ...]:
    """The chain of RFC 8693 s4.1, outermost first: the outermost `sub` acts now, those within acted before."""
    actors: list[str] = []
    while act is not None:
        if not isinstance(act, dict):
            raise TokenRefused("act")
        actors.append(identifier_claim(act, "sub"))
        act = act.get("act")
    if not actors:
        raise TokenRefused("act")
    return tuple(actors)
