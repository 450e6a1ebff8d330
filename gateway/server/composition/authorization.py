"""Makes what decides who is who and who may what."""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from adapters.upstream.egress import Egress
from gateway.calls.authorizer import CallAuthorizer, RequireInPerson
from gateway.calls.limits.meters import CallLimits, Limit
from gateway.registration.tool_schemas import known_tools_of
from gateway.server.identity_settings import IssuerSettings
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
from policies.environment import RolesNow, RulingEnvironment
from policies.ids import new_id
from policies.keys.signing import SigningKeys
from policies.tokens.claims import DEVELOPMENT_ISSUER
from policies.tokens.issuers import TrustedIssuer
from policies.tokens.verifier import TokenVerifier
from registry.cards.card import Family
from registry.store import Registry, UnknownName


def issuers_of_people(settings: Settings) -> list[str]:
    """Who vouches for people."""
    known = [issuer.issuer for issuer in settings.identity.issuers]
    return [*known, DEVELOPMENT_ISSUER] if settings.is_development else known


def scopes_supported(settings: Settings) -> list[str]:
    """The scopes that mean something here and that every issuer of people understands: names of their scope maps."""
    maps = [frozenset(issuer.scope_map or ()) for issuer in settings.identity.issuers]
    return sorted(frozenset.intersection(*maps)) if maps else []


def build_limits(settings: Settings) -> CallLimits:
    """How much may be asked for."""
    return CallLimits([Limit(**seed.model_dump()) for seed in settings.limits.per], time.monotonic, time.time)


def build_token_verifier(settings: Settings, keys: SigningKeys, egress: Egress) -> TokenVerifier:
    """Whom tokens are believed from."""
    trusted = [_trusted_issuer(issuer) for issuer in settings.identity.issuers]
    return TokenVerifier(settings.public_url, keys, trusted, egress.fetch, settings.is_development)


def _trusted_issuer(issuer: IssuerSettings) -> TrustedIssuer:
    """A provider as the settings describe it."""
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
    """The tools of every tenant, as they are now: what policies can speak of."""

    def read_tools() -> Iterator[KnownTool]:
        for tenant in registry.tenants():
            yield from known_tools_of(registry.list(tenant, Family.SERVER))

    return read_tools


def known_schema(registry: Registry) -> SchemaOf:
    """The arguments that a registered tool declares, as they are now."""

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
    """Of development users from the settings, of others as their issuer vouched."""

    def now(issuer: str, subject: str, vouched: Sequence[str]) -> tuple[str, ...]:
        return settings.roles_of(subject) if issuer == DEVELOPMENT_ISSUER else tuple(vouched)

    return now


def build_in_person_check(authority: Authority, authorizer: CallAuthorizer) -> RequireInPerson:
    """The check of acts that need no right but are the person's own, such as giving up an account: no agent does them."""

    async def check(caller: Caller, act: Act) -> None:
        denial = authority.deny_delegated_administration(caller, RulingRequest(act, caller.principal.tenant))
        if denial is not None:
            raise await authorizer.record_refusal(caller, denial)

    return check


def build_environment(settings: Settings, registry: Registry, is_fresh: Callable[[], bool], kills: Kills) -> RulingEnvironment:
    """What rights depend on beside the policies: roles and ceilings as they are now."""

    def ceiling_now(tenant: str, agent: str) -> Permissions | None:
        ceiling = registry.active_ceiling_of(tenant, agent)
        return None if ceiling is None else parse_ceiling(ceiling)

    return RulingEnvironment(
        roles_now=current_roles_reader(settings),
        ceiling_now=ceiling_now,
        role_permissions={role: Permissions.parse(texts) for role, texts in settings.roles.items()},
        new_id=new_id,
        now=time.time,
        is_fresh=is_fresh,
        clearance_now=registry.clearance_of,
        kills=kills,
        task_ttl=settings.identity.task_ttl,
    )


def running_tasks(database: Database) -> Callable[[str, str], Awaitable[bool]]:
    """Tells whether the turn of a task is under way, by its tenant and id. Raises NotRead."""

    async def is_under_way(tenant: str, task_id: str) -> bool:
        return await database.read(lambda connection: is_running(connection, tenant, task_id))

    return is_under_way
