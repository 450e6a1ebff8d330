"""Builds the FastAPI application: token endpoints, administration, discovery."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from adapters.oauth.authorized import own_credential_request
from gateway.calls.authorizer import RequireInPerson
from gateway.calls.revocation.grants import Revocation
from gateway.ingress.admin import approvals as admin_approvals
from gateway.ingress.admin import connections as admin_connections
from gateway.ingress.admin import cost as admin_cost
from gateway.ingress.admin import dead_letters as admin_deadletters
from gateway.ingress.admin import tasks as admin_tasks
from gateway.ingress.admin.api import TokenGuard, build_api
from gateway.ingress.admin.authority import audit as admin_audit
from gateway.ingress.admin.authority import authzen as admin_access
from gateway.ingress.admin.authority import console_links as admin_console
from gateway.ingress.admin.authority import decisions as admin_decisions
from gateway.ingress.admin.authority import grants as admin_grants
from gateway.ingress.admin.authority import kills as admin_kills
from gateway.ingress.admin.authority import policies as admin_policies
from gateway.ingress.admin.authority.evaluations import AccessEvaluator
from gateway.ingress.admin.authority.oversight import Oversight
from gateway.ingress.admin.registry import agents as admin_agents
from gateway.ingress.admin.registry import discovery as admin_discovery
from gateway.ingress.admin.registry import servers as admin_servers
from gateway.ingress.admin.registry import virtual_servers as admin_virtual
from gateway.ingress.admin.registry.access import RegistryAccess, RegistryPermissions
from gateway.ingress.admin.registry.changes import EntryChanges
from gateway.ingress.admin.state import board as admin_board
from gateway.ingress.admin.state import claims as admin_claims
from gateway.ingress.admin.state import held as admin_held_state
from gateway.ingress.admin.state import memory as admin_memory
from gateway.ingress.admin.state import subjects as admin_subjects
from gateway.ingress.admin.workflows import checkpoints as admin_checkpoints
from gateway.ingress.admin.workflows import cloud_events as admin_events
from gateway.ingress.admin.workflows import documents as admin_documents
from gateway.ingress.admin.workflows import events as admin_run_events
from gateway.ingress.admin.workflows import operations as admin_operations
from gateway.ingress.admin.workflows import relaxing as admin_relaxing
from gateway.ingress.admin.workflows import runs as admin_runs
from gateway.ingress.http.asgi import Receive, Scope, Send
from gateway.ingress.http.authentication import RequestAuthentication
from gateway.ingress.http.proofs import RequestProofs
from gateway.ingress.oauth import connect as oauth_connect
from gateway.ingress.oauth import metadata as oauth_metadata
from gateway.ingress.oauth import revoke as oauth_revoke
from gateway.ingress.oauth import token as oauth_token
from gateway.ingress.oauth.client import ClientAuthentication
from gateway.ingress.oauth.token import TokenIssuance
from gateway.server.composition import authorization as rights
from gateway.server.composition.process import Gateway
from gateway.server.composition.protocol_servers import CONSOLE_PATHS, LazyConsole
from gateway.server.router import App
from policies.callers import Caller
from policies.ids import now_us
from policies.tokens.client_assertion import ClientAssertionVerifier
from policies.tokens.dpop import DpopVerifier
from policies.tokens.person_tokens import PersonTokens
from policies.tokens.replay_guard import ReplayGuard
from policies.tokens.tickets import Tickets


class DeferredApp:
    """An application that is built before it serves its first request, which takes a tenth of a second."""

    def __init__(self, build: Callable[[], App]) -> None:
        self._build = cache(build)

    def build(self) -> App:
        """Returns the application, and builds it now if no request did."""
        return self._build()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._build()(scope, receive, send)


def build_client_authentication(gateway: Gateway) -> ClientAuthentication:
    """Builds the client authentication of agents, which all protocol servers use."""
    url = gateway.settings.public_url
    assertions = ClientAssertionVerifier((url, f"{url}/oauth/token"), time.time)
    return ClientAuthentication(gateway.registry, assertions, ReplayGuard(gateway.database, now_us))


def build_proofs(gateway: Gateway, clients: ClientAuthentication) -> RequestProofs:
    """Builds the verification of credentials beside a token: DPoP proofs and tickets."""
    url, possession = gateway.settings.public_url, DpopVerifier(gateway.keys, ReplayGuard(gateway.database, now_us), time.time)
    grpc_url = f"{urlsplit(url).scheme}://{gateway.settings.public_grpc}"
    return RequestProofs(clients, Tickets(gateway.database, time.time), possession, public_url=url, grpc_url=grpc_url)


def build_framework_app(
    gateway: Gateway, authentication: RequestAuthentication, clients: ClientAuthentication, proofs: RequestProofs
) -> App:
    """Builds the application with all of its routes."""
    authenticate = TokenGuard(authentication, gateway.limits.count_request)
    url, size, could_allow = gateway.settings.public_url, gateway.settings.server.max_body, gateway.rulings.authority.could_allow
    issuers = [issuer.issuer for issuer in gateway.settings.identity.issuers]
    check_in_person = rights.build_in_person_check(gateway.rulings.authority, gateway.authorizer)
    registry_access, entry_changes = _build_registry_access(gateway, check_in_person)
    oversight = Oversight(gateway.database, could_allow, gateway.authorize)
    dependencies = (gateway.rulings.authority, gateway.registry, gateway.database, rights.current_roles_reader(gateway.settings))
    evaluator = AccessEvaluator(*dependencies, effects=gateway.authorizer.effects)
    what_if_policies = admin_policies.WhatIfPolicies(
        gateway.settings.roles, gateway.settings.policies or "", rights.known_schema(gateway.registry)
    )
    redeemer = PersonTokens(gateway.keys, gateway.rulings.token_verifier, ReplayGuard(gateway.database, now_us), gateway.rulings.minting)
    token_issuance = TokenIssuance(clients, gateway.rulings.hop_tokens, redeemer, proofs)
    revocation = Revocation(gateway.database, gateway.rulings.grants, gateway.rulings.spool, now_us, gateway.calls.stopper)
    grant_return = oauth_revoke.GrantReturn(clients, gateway.rulings.token_verifier, Tickets(gateway.database, time.time), revocation)
    approval_permissions = admin_approvals.ApprovalPermissions(
        could_allow, gateway.authorize, check_in_person, gateway.approved_task_resumer.run_once
    )
    server_runtime = admin_servers.ServerRuntime(
        gateway.tools.error_lines, lambda entry: gateway.oauth.delete_registration(own_credential_request(entry))
    )
    console = LazyConsole(gateway)
    return build_api(
        authentication,
        [
            *_state_routes(gateway, authenticate),  # first: they have many requests, and the framework tries routes in order
            oauth_metadata.routes(url, gateway.keys, issuers, rights.scopes_supported(gateway.settings)),
            oauth_connect.client_routes(gateway.own_client),
            oauth_connect.routes(
                gateway.account_connections, gateway.oauth, gateway.own_client, authentication.authenticate_header, check_in_person
            ),
            oauth_token.routes(
                token_issuance, gateway.record_audit, gateway.rejected_credentials.log_rejection, gateway.limits.count_request_of
            ),
            oauth_revoke.routes(grant_return, gateway.rejected_credentials.log_rejection, gateway.limits.count_request_of),
            admin_agents.routes(registry_access, entry_changes, gateway.onboarding, authenticate, size),
            admin_servers.routes(registry_access, entry_changes, gateway.onboarding, authenticate, size, runtime=server_runtime),
            admin_virtual.routes(registry_access, gateway.registry, authenticate, size),
            _task_routes(gateway, authenticate, oversight),
            admin_decisions.routes(gateway.database, authenticate, could_allow),
            admin_grants.routes(revocation, authenticate, could_allow, check_in_person),
            admin_kills.routes(gateway.kill_switch, authenticate, could_allow, gateway.authorize, size),
            admin_approvals.routes(gateway.approvals, authenticate, approval_permissions),
            admin_discovery.catalog_routes(gateway.registry, gateway.front_door, url),
            admin_discovery.routes(registry_access, authenticate, url),
            admin_access.metadata_routes(url),
            admin_access.routes(evaluator, admin_access.EvaluationPermission(could_allow, gateway.authorize), authenticate, size),
            admin_policies.routes(gateway.database, what_if_policies, authenticate, gateway.authorize, size),
            *_own_routes(gateway, registry_access, authenticate, check_in_person, create_link=console.create_link),
            *_record_routes(gateway, authenticate, check_in_person),
            *_workflow_routes(gateway, registry_access, authenticate, check_in_person),
        ],
        is_operator=registry_access.is_operator,
        pages=dict.fromkeys(CONSOLE_PATHS, console),
    )


def _own_routes(
    gateway: Gateway,
    registry_access: RegistryAccess,
    authenticate: TokenGuard,
    check_in_person: RequireInPerson,
    *,
    create_link: admin_console.CreateLink,
) -> list[Any]:
    """Builds the routes of what a person has: connected accounts, and links to the console."""
    dependencies = admin_connections.ConnectionDependencies(
        gateway.vault, registry_access.list_visible, gateway.record_audit, check_in_person, gateway.oauth.revoke
    )
    return [
        admin_connections.routes(dependencies, authenticate),
        admin_console.routes(create_link, authenticate, check_in_person),
    ]


def _build_registry_access(gateway: Gateway, check_in_person: RequireInPerson) -> tuple[RegistryAccess, EntryChanges]:
    authority = gateway.rulings.authority
    permissions = RegistryPermissions(authority.could_allow, gateway.authorize, check_in_person, authority.rulings_version)
    registry_access = RegistryAccess(
        gateway.registry, permissions, gateway.search, gateway.rulings.kills, empty_list_reasons=gateway.empty_lists
    )
    entry_changes = EntryChanges(
        registry_access,
        gateway.registry,
        gateway.inspector,
        gateway.drift_approval,
        gateway.entry_refresher,
        call_state_of=gateway.catalog.resilience.describe_agent,
    )
    return registry_access, entry_changes


def _state_routes(gateway: Gateway, authenticate: TokenGuard) -> list[Any]:
    """Builds the routes of shared state, claims and subjects."""
    subjects = gateway.subjects
    return [
        admin_claims.routes(subjects.claim_operations, authenticate, gateway.authorize, gateway.settings.server.max_body),
        admin_subjects.routes(subjects.looks, authenticate, gateway.authorize),
        admin_board.read_routes(gateway.board.load, authenticate, gateway.open_streams),
        admin_board.write_routes(gateway.board.load, authenticate, gateway.settings.server.max_body),
        admin_held_state.routes(gateway.board.load_held, authenticate),
    ]


def _task_routes(gateway: Gateway, authenticate: TokenGuard, oversight: Oversight) -> Any:
    parts, currency = (gateway.database, gateway.stores.tasks, authenticate, gateway.open_streams), gateway.settings.costs.currency
    return admin_tasks.routes(*parts, oversight=oversight, currency=currency)


def _record_routes(gateway: Gateway, authenticate: TokenGuard, check_in_person: RequireInPerson) -> list[Any]:
    """Builds the routes of what the gateway records: the audit, costs, and webhooks that could not be delivered."""
    return [
        admin_memory.routes(_memory_parts(gateway, check_in_person), authenticate),
        admin_audit.routes(gateway.database, authenticate, gateway.authorize),
        admin_cost.routes(gateway.database, gateway.settings.costs.currency, authenticate, gateway.authorize),
        admin_deadletters.routes(
            (gateway.webhooks.outbox, gateway.webhooks.events, gateway.events.starts), authenticate, gateway.authorize
        ),
    ]


def _memory_parts(gateway: Gateway, check_in_person: RequireInPerson) -> admin_memory.MemoryParts:
    memory = gateway.memory
    return admin_memory.MemoryParts(memory.access, memory.contexts, memory.quarantines, gateway.authorize, check_in_person)


def _workflow_routes(gateway: Gateway, access: RegistryAccess, authenticate: TokenGuard, check_in_person: RequireInPerson) -> list[Any]:
    """Builds the routes of workflows, runs and checkpoints. The engine is loaded by the first request that needs it."""
    load, size = gateway.workflows.load, gateway.settings.server.max_body
    authority, environment, notify_look = gateway.rulings.authority, gateway.rulings.environment, gateway.stores.tasks.notify_look

    def has_permission(caller: Caller, permission: str) -> bool:
        return environment.has_permission(caller.principal, caller.delegation.effective_permissions(), permission)

    permissions = admin_runs.RunPermissions(authority.could_allow, gateway.authorize, check_in_person, gateway.authorize, has_permission)
    event_permissions = admin_events.EventPermissions(permissions.could_allow, permissions.authorize, check_in_person)
    run_access = admin_operations.RunAccess(gateway.workflows.load_operations, permissions, notify_look)
    may_answer = admin_checkpoints.CheckpointAccess(permissions).may_answer
    sight, starter = (
        admin_runs.RunSight(load, permissions, notify_look, may_answer),
        admin_runs.RunStarter(gateway.calls.agents, gateway.registry),
    )
    return [
        admin_documents.routes(access, load, authenticate, size, refused_documents=gateway.workflows.folder.refused_documents),
        admin_relaxing.routes(access, load, gateway.authorize, authenticate),
        admin_runs.run_routes(starter, sight, authenticate),
        admin_runs.runs_of_workflow_routes(starter, sight, authenticate),
        admin_run_events.routes(sight, load, gateway.open_streams, authenticate),
        admin_operations.operation_routes(run_access, authenticate),
        admin_operations.successor_routes(run_access, gateway.calls.agents, gateway.registry, authenticate),
        admin_checkpoints.checkpoint_routes(
            load, permissions, authenticate, feed=gateway.webhooks.notices, open_streams=gateway.open_streams
        ),
        admin_events.event_routes(gateway.workflows.load_events, authenticate, event_permissions, gateway.open_streams, size),
        admin_events.source_routes(gateway.workflows.load_events, gateway.events.sources, gateway.rejected_credentials.log_rejection),
        admin_events.trigger_routes(gateway.workflows.load_events, access, authenticate, size),
    ]
