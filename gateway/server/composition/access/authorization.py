"""Builds token verification, limits and the inputs of rulings from the settings."""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from adapters.upstream.egress import Egress
from gateway.calls.authorizer import CallAuthorizer, RequireInPerson
from gateway.calls.limits.limit import Limit
from gateway.calls.limits.meters import CallLimits
from gateway.registration.tool_schemas import known_tools_of
from gateway.server.sections.identity import IssuerSettings
from gateway.server.settings import Settings
from gateway.storage.database import Database
from gateway.tasks.log import is_running
from policies.authority import Authority, RulingRequest
from policies.callers import Caller
from policies.cedar.argument_types import KnownTool
from policies.cedar.engine import SchemaOf, ToolSource
from policies.delegation.kills import Kills
from policies.delegation.permissions import Permissions, parse_ceiling
from policies.delegation.rulings import Act
from policies.delegation.run_as import SERVICE_ISSUER, ServicePrincipal, ServicePrincipals
from policies.environment import RolesNow, RulingEnvironment
from policies.ids import new_id
from policies.keys.signing import SigningKeys
from policies.tokens.claims import DEVELOPMENT_ISSUER
from policies.tokens.issuers import TrustedIssuer
from policies.tokens.verifier import TokenVerifier
from registry.cards.card import Family
from registry.store import Registry, UnknownName


def issuers_of_people(settings: Settings) -> list[str]:
    """Returns the issuers of people's tokens."""
    known = [issuer.issuer for issuer in settings.identity.issuers]
    return [*known, DEVELOPMENT_ISSUER] if settings.is_development else known


def scopes_supported(settings: Settings) -> list[str]:
    """Returns the scopes that the scope maps of all issuers of people's tokens have in common, sorted."""
    maps = [frozenset(issuer.scope_map or ()) for issuer in settings.identity.issuers]
    return sorted(frozenset.intersection(*maps)) if maps else []


def build_limits(settings: Settings) -> CallLimits:
    """Builds the limits on calls from the settings."""
    return CallLimits([Limit(**seed.model_dump()) for seed in settings.limits.per], time.monotonic, time.time)


def build_token_verifier(settings: Settings, keys: SigningKeys, egress: Egress, is_session_ended: Callable[[str], bool]) -> TokenVerifier:
    """Builds the token verifier, which trusts the gateway itself and the configured issuers."""
    trusted = [_trusted_issuer(issuer) for issuer in settings.identity.issuers]
    development = settings.is_development
    return TokenVerifier(settings.public_url, keys, trusted, egress.fetch, development, is_session_ended=is_session_ended)


def _trusted_issuer(issuer: IssuerSettings) -> TrustedIssuer:
    """Converts the settings of one issuer."""
    scope_map = {scope: Permissions.parse(texts) for scope, texts in (issuer.scope_map or {}).items()}
    return TrustedIssuer(
        issuer=issuer.issuer,
        jwks_url=issuer.jwks_url,
        audience=issuer.audience,
        other_audiences=tuple(issuer.other_audiences),
        algorithms=tuple(issuer.algorithms),
        typ=issuer.typ,
        token_life=issuer.token_life,
        subject_claim=issuer.subject_claim,
        roles_claims=(issuer.roles_claim,) if isinstance(issuer.roles_claim, str) else tuple(issuer.roles_claim),
        default_roles=tuple(issuer.default_roles),
        tenant_claim=issuer.tenant_claim,
        tenants=tuple(issuer.tenants),
        scopes=issuer.scopes,
        scope_map=scope_map if issuer.scope_map is not None else None,
        id_jag=issuer.id_jag,
    )


def tools_reader(registry: Registry) -> ToolSource:
    """Returns a reader of the current tools of all tenants, which policies can refer to."""

    def read_tools() -> Iterator[KnownTool]:
        for tenant in registry.tenants():
            yield from known_tools_of(registry.list(tenant, Family.SERVER))

    return read_tools


def known_schema(registry: Registry) -> SchemaOf:
    """Returns a reader of the input schema that a registered tool declares now."""

    def schema_of(tenant: str, act: Act) -> Mapping[str, Any] | None:
        try:
            entry = registry.find(tenant, act.parent)
        except UnknownName:
            return None
        name = act.resource.removeprefix(f"{act.parent}.")
        found = next((tool.definition.get("inputSchema") for tool in entry.tools if tool.name == name), None)
        return found if isinstance(found, dict) else None

    return schema_of


def current_roles_reader(settings: Settings) -> RolesNow:
    """Returns a reader of current roles: of development users from the settings, of others from their token's issuer."""

    def now(issuer: str, subject: str, vouched: Sequence[str]) -> tuple[str, ...]:
        if issuer == SERVICE_ISSUER:
            return tuple(settings.service_principals[subject].roles) if subject in settings.service_principals else ()
        return settings.roles_of(subject) if issuer == DEVELOPMENT_ISSUER else tuple(vouched)

    return now


def build_service_principals(settings: Settings) -> ServicePrincipals:
    """Builds the service principals of the settings."""
    named = settings.service_principals.items()
    known = {name: ServicePrincipal(each.tenant, tuple(each.roles), Permissions.parse(each.ceiling)) for name, each in named}
    return ServicePrincipals(known)


def build_in_person_check(authority: Authority, authorizer: CallAuthorizer) -> RequireInPerson:
    """Builds the check of acts that need no permission but the person, such as disconnecting an account. It refuses agents."""

    async def check(caller: Caller, act: Act) -> None:
        denial = authority.deny_delegated_administration(caller, RulingRequest(act, caller.principal.tenant))
        if denial is not None:
            raise await authorizer.record_refusal(caller, denial)

    return check


def build_environment(settings: Settings, registry: Registry, is_fresh: Callable[[], bool], kills: Kills) -> RulingEnvironment:
    """Builds the environment of rulings: the current roles, ceilings, clearances and kills."""

    def ceiling_now(tenant: str, agent: str) -> Permissions | None:
        ceiling = registry.active_ceiling_of(tenant, agent)
        return None if ceiling is None else parse_ceiling(ceiling)

    def memory_now(tenant: str, agent: str) -> str:
        try:
            return registry.find(tenant, agent).memory
        except UnknownName:
            return "none"

    return RulingEnvironment(
        roles_now=current_roles_reader(settings),
        ceiling_now=ceiling_now,
        role_permissions={role: Permissions.parse(texts) for role, texts in settings.roles.items()},
        new_id=new_id,
        now=time.time,
        is_fresh=is_fresh,
        clearance_now=registry.clearance_of,
        memory_now=memory_now,
        kills=kills,
        task_ttl=settings.identity.task_ttl,
        service_ceiling=build_service_principals(settings).ceiling_of,
        run_ttl=settings.identity.run_ttl,
        roles_ttl=settings.identity.roles_ttl,
    )


def running_tasks(database: Database) -> Callable[[str, str], Awaitable[bool]]:
    """Returns a check, by tenant and task id, that a turn of the task is in flight. The check raises ReadFailed."""

    async def is_under_way(tenant: str, task_id: str) -> bool:
        return await database.read(lambda connection: is_running(connection, tenant, task_id))

    return is_under_way
