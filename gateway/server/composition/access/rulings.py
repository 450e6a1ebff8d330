"""Builds authentication, the authority and revocation."""

import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

from adapters.upstream.egress import Egress
from gateway.calls.revocation.spool import Spool
from gateway.events.recorder import EventRecorder
from gateway.ingress.oauth.sign_in.ended import EndedSessions
from gateway.server.composition.access import authorization
from gateway.server.reload import PolicyReload
from gateway.server.settings import Settings
from gateway.storage.database import Database
from gateway.tasks.log import has_ended
from policies.audit.log import AuditLog
from policies.authority import Authority
from policies.callers import Caller, CallerResolver
from policies.cedar.engine import PolicyEngine
from policies.cedar.files.unstored_facts import unstored_fact_warnings
from policies.delegation.grants import Grants
from policies.delegation.kills import Kills
from policies.environment import RulingEnvironment
from policies.ids import new_id, now_us
from policies.keys.signing import SigningKeys
from policies.tokens.hop_tokens import HopTokens, MintingParameters
from policies.tokens.verifier import TokenVerifier
from registry.store import Registry


@dataclass(frozen=True, slots=True)
class Rulings:
    """Authentication of callers, the authority that rules on their acts, and grants with their revocation."""

    token_verifier: TokenVerifier
    ended_sessions: EndedSessions
    kills: Kills
    grants: Grants
    spool: Spool
    caller_resolver: CallerResolver
    environment: RulingEnvironment
    engine: PolicyEngine
    authority: Authority
    policy_reload: PolicyReload
    minting: MintingParameters
    hop_tokens: HopTokens


def build_rulings(
    settings: Settings,
    keys: SigningKeys,
    database: Database,
    registry: Registry,
    *,
    audit: AuditLog,
    egress: Egress,
    recorder: EventRecorder,
) -> Rulings:
    """Builds the rulings of one process. Each ruling reads the current registry, roles and policies."""
    ended_sessions = EndedSessions(database, settings.sign_in.token_life, now_us)
    token_verifier = authorization.build_token_verifier(settings, keys, egress, ended_sessions.has)
    kills = Kills(database)
    grants = Grants(database, time.time, has_ended, kills)
    environment = authorization.build_environment(settings, registry, database.is_fresh, kills)
    engine = PolicyEngine(
        settings.roles,
        Path(settings.policies) if settings.policies else None,
        authorization.tools_reader(registry),
        schema_of=authorization.known_schema(registry),
    )
    authority = Authority(engine, environment)
    is_running = authorization.running_tasks(database)
    minting = MintingParameters(settings.public_url, settings.identity.hop_ttl, new_id, time.time, environment.ceiling_now, is_running)
    return Rulings(
        token_verifier=token_verifier,
        ended_sessions=ended_sessions,
        kills=kills,
        grants=grants,
        spool=Spool(settings.home, audit, grants, kills, recorder),
        caller_resolver=CallerResolver(token_verifier, grants, environment),
        environment=environment,
        engine=engine,
        authority=authority,
        policy_reload=_build_reload(database, engine, audit, authority, registry, settings=settings),
        minting=minting,
        hop_tokens=HopTokens(keys, token_verifier, grants, minting),
    )


def _build_reload(
    database: Database, engine: PolicyEngine, audit: AuditLog, authority: Authority, registry: Registry, *, settings: Settings
) -> PolicyReload:
    def find_doubts() -> Iterator[str]:
        return unstored_fact_warnings(engine.rules.operator_policies, engine.rules.operator_places, settings.state.backed_prefixes)

    return PolicyReload(database, engine, audit, authority.invalidate, lambda: registry.server_generation, find_doubts=find_doubts)


def list_key_of(authority: Authority) -> Callable[[Caller], Hashable]:
    """Returns what finds the key of a caller's lists: equal for callers with equal rights, until these change; None: lists aren't kept."""

    def find_key(caller: Caller) -> Hashable:
        version = authority.rulings_version()
        return None if version is None else (version, authority.class_rulings.rights_key(caller))

    return find_key
