"""Makes what decides who is who and who may what."""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from adapters.upstream.egress import Egress
from gateway.calls.authorizer import InPerson, Ledger
from gateway.calls.limits.limits import Limit, Limits
from gateway.registration.tool_schemas import tools_of
from gateway.server.identity_settings import Issuer
from gateway.server.settings import Settings
from gateway.storage.database import Database
from gateway.tasks.log import is_running
from policies.authority import Authority, Request
from policies.callers import Caller
from policies.cedar.argument_types import KnownTool
from policies.cedar.engine import SchemaOf, Tools
from policies.delegation.kills import Kills
from policies.delegation.permissions import Permissions, ceiling_of
from policies.delegation.rulings import Act
from policies.environment import RolesNow, Surroundings
from policies.ids import new_id
from policies.keys.signing import SigningKeys
from policies.tokens.claims import DEVELOPMENT_ISSUER
from policies.tokens.issuers import TrustedIssuer
from policies.tokens.verifier import Identity
from registry.cards.card import Family
from registry.store import Registry, UnknownName


def issuers(settings: Settings) -> list[str]:
    """Who vouches for people."""
    known = [issuer.issuer for issuer in settings.identity.issuers]
    return [*known, DEVELOPMENT_ISSUER] if settings.development else known


def scopes_supported(settings: Settings) -> list[str]:
    """The scopes that mean something here and that every issuer of people understands: names of their scope maps."""
    maps = [frozenset(issuer.scope_map or ()) for issuer in settings.identity.issuers]
    return sorted(frozenset.intersection(*maps)) if maps else []


def limits(settings: Settings) -> Limits:
    """How much may be asked for."""
    return Limits([Limit(**seed.model_dump()) for seed in settings.limits.per], time.monotonic, time.time)


def identity(settings: Settings, keys: SigningKeys, egress: Egress) -> Identity:
    """Whom tokens are believed from."""
    trusted = [_trusted(issuer) for issuer in settings.identity.issuers]
    return Identity(settings.public_url, keys, trusted, egress.fetch, settings.development)


def _trusted(given: Issuer) -> TrustedIssuer:
    """A provider as the settings describe it."""
    scope_map = {scope: Permissions.of(texts) for scope, texts in (given.scope_map or {}).items()}
    return TrustedIssuer(
        issuer=given.issuer,
        jwks_url=given.jwks_url,
        audience=given.audience,
        other_audiences=tuple(given.other_audiences),
        algorithms=tuple(given.algorithms),
        typ=given.typ,
        token_life=given.token_life,
        subject_claim=given.subject_claim,
        roles_claims=(given.roles_claim,) if isinstance(given.roles_claim, str) else tuple(given.roles_claim),
        default_roles=tuple(given.default_roles),
        tenant_claim=given.tenant_claim,
        tenants=tuple(given.tenants),
        scopes=given.scopes,
        scope_map=scope_map if given.scope_map is not None else None,
        id_jag=given.id_jag,
    )


def known_tools(registry: Registry) -> Tools:
    """The tools of every tenant, as they are now: what policies can speak of."""

    def tools() -> Iterator[KnownTool]:
        for tenant in registry.tenants():
            yield from tools_of(registry.list(tenant, Family.SERVER))

    return tools


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


def roles_now(settings: Settings) -> RolesNow:
    """Of development users from the settings, of others as their issuer vouched."""

    def now(issuer: str, subject: str, vouched: Sequence[str]) -> tuple[str, ...]:
        return settings.roles_of(subject) if issuer == DEVELOPMENT_ISSUER else tuple(vouched)

    return now


def in_person(authority: Authority, ledger: Ledger) -> InPerson:
    """The check of acts that need no right but are the person's own, such as giving up an account: no agent does them."""

    async def check(caller: Caller, act: Act) -> None:
        denial = authority.deny_delegated(caller, Request(act, caller.principal.tenant))
        if denial is not None:
            raise await ledger.refusal(caller, denial)

    return check


def surroundings(settings: Settings, registry: Registry, fresh: Callable[[], bool], kills: Kills) -> Surroundings:
    """What rights depend on beside the policies: roles and ceilings as they are now."""

    def ceiling_now(tenant: str, agent: str) -> Permissions | None:
        ceiling = registry.ceiling(tenant, agent)
        return None if ceiling is None else ceiling_of(ceiling)

    return Surroundings(
        roles_now=roles_now(settings),
        ceiling_now=ceiling_now,
        role_permissions={role: Permissions.of(texts) for role, texts in settings.roles.items()},
        new_id=new_id,
        now=time.time,
        fresh=fresh,
        clearance_now=registry.clearance,
        kills=kills,
        task_ttl=settings.identity.task_ttl,
    )


def running_tasks(database: Database) -> Callable[[str, str], Awaitable[bool]]:
    """Tells whether the turn of a task is under way, by its tenant and id. Raises NotRead."""

    async def is_under_way(tenant: str, task_id: str) -> bool:
        return await database.read(lambda connection: is_running(connection, tenant, task_id))

    return is_under_way
