"""Builds the FastAPI application: token endpoints, administration, discovery."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from adapters.oauth.authorized import own_credential_request
from gateway.calls.authorizer import RequireInPerson
from gateway.calls.costs.balances import DayBudgets
from gateway.calls.revocation.grants import Revocation
from gateway.ingress.admin import approvals as admin_approvals
from gateway.ingress.admin import connections as admin_connections
from gateway.ingress.admin import cost as admin_cost
from gateway.ingress.admin import dead_letters as admin_deadletters
from gateway.ingress.admin import tasks as admin_tasks
from gateway.ingress.admin.api import RouteAreas, Routers, TokenGuard, build_api, build_page_router
from gateway.ingress.admin.authority import audit as admin_audit
from gateway.ingress.admin.authority import authzen as admin_access
from gateway.ingress.admin.authority import console_links as admin_console
from gateway.ingress.admin.authority import decisions as admin_decisions
from gateway.ingress.admin.authority import grants as admin_grants
from gateway.ingress.admin.authority import kills as admin_kills
from gateway.ingress.admin.authority import policies as admin_policies
from gateway.ingress.admin.authority import retention as admin_retention
from gateway.ingress.admin.authority import settings as admin_settings
from gateway.ingress.admin.authority.evaluations import AccessEvaluator
from gateway.ingress.admin.authority.oversight import Oversight
from gateway.ingress.admin.registry import agents as admin_agents
from gateway.ingress.admin.registry import declarations as admin_declarations
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
from gateway.ingress.admin.workflows.direct_routes import DirectRoute, DirectRoutes
from gateway.ingress.http.authentication import RequestAuthentication
from gateway.ingress.http.proofs import RequestProofs
from gateway.ingress.oauth import connect
from gateway.ingress.oauth.client import ClientAuthentication
from gateway.server.composition.access import authorization as rights
from gateway.server.composition.oauth.console import PAGE_NAME as CONSOLE_PAGE
from gateway.server.composition.oauth.console import ConsoleSignIns
from gateway.server.composition.oauth.lazy_console import CONSOLE_PATHS, LazyConsole
from gateway.server.composition.oauth.routes import oauth_areas
from gateway.server.composition.oauth.sign_in import build_sign_in
from gateway.server.composition.process import Gateway
from gateway.server.configured import build_configured_entries
from gateway.server.sections.in_force import describe_settings
from policies.audit.heads import read_heads
from policies.callers import Caller
from policies.ids import now_us
from registry.cards.card import Registration


def build_framework_app(
    gateway: Gateway, authentication: RequestAuthentication, clients: ClientAuthentication, proofs: RequestProofs
) -> DirectRoutes:
    """Builds the application. Its routes are built area by area, each by the first request for it."""
    authenticate = TokenGuard(authentication, gateway.limits.count_request)
    check_in_person = rights.build_in_person_check(gateway.rulings.authority, gateway.authorizer)
    access, changes = _build_registry_access(gateway, check_in_person)
    revocation = Revocation(gateway.database, gateway.rulings.grants, gateway.rulings.spool, now_us, gateway.calls.stopper)
    connections = admin_connections.ConnectionDependencies(
        gateway.vault, access.list_visible, gateway.record_audit, check_in_person, gateway.oauth.revoke
    )
    build_event_routers, direct_event_routes = _event_routes(gateway, authenticate, check_in_person)
    connect_pages = connect.ConnectPages(gateway.account_connections, gateway.own_client)
    console = LazyConsole(gateway, ConsoleSignIns(lambda: find_sign_in(), gateway.settings.public_url))
    complete_pages = {connect.PAGE_NAME: connect_pages.complete_sign_in, CONSOLE_PAGE: console.complete_sign_in}
    find_sign_in = cache(lambda: build_sign_in(gateway, proofs, complete_pages))
    oauth = oauth_areas(
        gateway,
        authentication,
        authenticate,
        clients,
        proofs,
        revocation=revocation,
        check_in_person=check_in_person,
        connect_pages=connect_pages,
        find_sign_in=find_sign_in,
    )
    areas: RouteAreas = {
        **_state_areas(gateway, authenticate),  # first: they have many requests, and areas are tried in order
        **oauth,
        "/.well-known": lambda: [
            *oauth["/.well-known"](),
            admin_discovery.catalog_routes(gateway.registry, gateway.front_door, gateway.settings.public_url),
            admin_access.metadata_routes(gateway.settings.public_url),
        ],
        "/console": lambda: [build_page_router(CONSOLE_PATHS, console)],
        "/api/console": lambda: [admin_console.routes(console, authenticate, check_in_person)],
        "/api/connections": lambda: [admin_connections.routes(connections, authenticate)],
        **_registry_areas(gateway, authenticate, access, changes),
        **_authority_areas(gateway, authenticate, check_in_person, revocation),
        **_record_areas(gateway, access, authenticate, check_in_person),
        "/api/events": build_event_routers,
        **_workflow_areas(gateway, access, authenticate, check_in_person),
    }
    return build_api(authentication, areas, access.is_operator, direct_event_routes)


def _event_routes(
    gateway: Gateway, authenticate: TokenGuard, check_in_person: RequireInPerson
) -> tuple[Callable[[], Routers], tuple[DirectRoute, ...]]:
    """Returns what builds the routes of events, and those of them that are served without the framework."""
    load, size, rulings = gateway.workflows.load_events, gateway.settings.server.max_body, gateway.workflows.events.rulings
    could_allow = gateway.rulings.authority.could_allow
    permissions = admin_events.EventPermissions(could_allow, rulings.authorize, rulings.authorize_and_write, check_in_person)
    receiver = admin_events.EventReceiver(load, permissions, size)
    webhooks = admin_events.WebhookReceiver(load, gateway.events.sources, gateway.rejected_credentials.log_rejection)

    def build_routers() -> Routers:
        return [
            admin_events.event_routes(load, receiver, authenticate, permissions, gateway.open_streams),
            admin_events.source_routes(webhooks, authenticate, permissions),
        ]

    return build_routers, admin_events.direct_event_routes(receiver, webhooks, authenticate)


def _registry_areas(gateway: Gateway, authenticate: TokenGuard, access: RegistryAccess, changes: EntryChanges) -> RouteAreas:
    """Returns the areas of agents, servers, virtual servers and discovery."""
    size, runtime = (
        gateway.settings.server.max_body,
        admin_servers.ServerRuntime(
            gateway.tools.error_lines, lambda entry: gateway.oauth.delete_registration(own_credential_request(entry))
        ),
    )
    return {
        "/api/agents": lambda: [admin_agents.routes(access, changes, gateway.onboarding, authenticate, size)],
        "/api/servers": lambda: [admin_servers.routes(access, changes, gateway.onboarding, authenticate, size, runtime=runtime)],
        "/api/virtual-servers": lambda: [admin_virtual.routes(access, gateway.registry, authenticate, size)],
        "/api/declarations": lambda: [admin_declarations.routes(access, _declaration_parts(gateway), authenticate)],
        "/ard": lambda: [admin_discovery.routes(access, authenticate, gateway.settings.public_url)],
    }


def _declaration_parts(gateway: Gateway) -> admin_declarations.DeclarationParts:
    """Returns what declares the entries of the registry. The engine is loaded by the first workflow."""
    settings = gateway.settings
    entries = build_configured_entries(settings.agents, settings.servers, settings.virtual)
    configured = frozenset(each.name for each in entries)

    async def read_workflow(entry: Registration) -> dict[str, Any]:
        return await (await gateway.workflows.load()).read_declaration(entry)

    def is_configured(name: str) -> bool:
        return name in configured or gateway.workflows.folder.has_published(name)

    return admin_declarations.DeclarationParts(gateway.registry, is_configured, read_workflow)


def _authority_areas(gateway: Gateway, authenticate: TokenGuard, check_in_person: RequireInPerson, revocation: Revocation) -> RouteAreas:
    """Returns the areas of rulings, policies, grants, kills and approvals."""
    settings, could_allow, authorize = gateway.settings, gateway.rulings.authority.could_allow, gateway.authorize
    size = settings.server.max_body
    approvals = admin_approvals.ApprovalPermissions(could_allow, authorize, check_in_person, gateway.approved_task_resumer.run_once)

    def build_evaluator() -> AccessEvaluator:
        dependencies = (gateway.rulings.authority, gateway.registry, gateway.database, rights.current_roles_reader(settings))
        return AccessEvaluator(*dependencies, effects=gateway.authorizer.effects)

    def build_access() -> Routers:
        return [admin_access.routes(build_evaluator(), admin_access.EvaluationPermission(could_allow, authorize), authenticate, size)]

    def build_policies() -> Routers:
        what_if = admin_policies.WhatIfPolicies(settings.roles, settings.policies or "", rights.known_schema(gateway.registry))
        parts = admin_policies.PolicyParts(gateway.database, what_if, build_evaluator(), could_allow, lambda: gateway.rulings.engine)
        return [admin_policies.routes(parts, authenticate, authorize, size)]

    return {
        "/api/decisions": lambda: [admin_decisions.routes(gateway.database, authenticate, could_allow, authorize)],
        "/api/grants": lambda: [admin_grants.routes(revocation, authenticate, could_allow, check_in_person)],
        "/api/kill": lambda: [admin_kills.routes(gateway.kill_switch, authenticate, could_allow, authorize, size)],
        "/api/approvals": lambda: [admin_approvals.routes(gateway.approvals, authenticate, approvals)],
        "/access/v1": build_access,
        "/api/policies": build_policies,
    }


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


def _state_areas(gateway: Gateway, authenticate: TokenGuard) -> RouteAreas:
    """Returns the areas of shared state, claims and subjects."""
    subjects, board, size = gateway.subjects, gateway.board, gateway.settings.server.max_body
    return {
        "/api/claims": lambda: [admin_claims.routes(subjects.claim_operations, authenticate, gateway.authorize, size)],
        "/api/subjects": lambda: [admin_subjects.routes(subjects.looks, authenticate, gateway.authorize)],
        "/api/state": lambda: [
            admin_board.read_routes(board.load, authenticate, gateway.open_streams),
            admin_board.write_routes(board.load, authenticate, size),
        ],
        "/api/state-held": lambda: [admin_held_state.routes(board.load_held, authenticate)],
    }


def _cost_parts(gateway: Gateway, access: RegistryAccess) -> admin_cost.CostParts:
    day_budgets = DayBudgets(gateway.limits.limits, gateway.registry)
    load = gateway.workflows.load
    return admin_cost.CostParts(gateway.database, gateway.settings.costs.currency, day_budgets, access.find, load, now_us)


def _record_areas(gateway: Gateway, access: RegistryAccess, authenticate: TokenGuard, check_in_person: RequireInPerson) -> RouteAreas:
    """Returns the areas of what the gateway records: tasks, the audit, costs, facts, and webhooks that could not be delivered."""
    database, authorize, currency = gateway.database, gateway.authorize, gateway.settings.costs.currency
    oversight = Oversight(database, gateway.rulings.authority.could_allow, authorize)
    letters = (gateway.webhooks.outbox, gateway.webhooks.events, gateway.events.starts)
    verifier = admin_audit.AuditVerifier(database, partial(read_heads, gateway.settings.home / "audit.heads"), gateway.keys)
    tasks = (database, gateway.stores.tasks, authenticate, gateway.open_streams)
    resolve_person, size = gateway.kill_switch.resolve_person, gateway.settings.server.max_body
    retention = admin_retention.RetentionParts(gateway.retention.pruner, gateway.retention.holds, resolve_person)
    return {
        "/api/tasks": lambda: [
            admin_tasks.routes(*tasks, oversight=oversight, currency=currency),
            admin_tasks.cancel_routes(gateway.stores.tasks, authenticate, oversight, gateway.calls.agents.cancellation.cancel),
        ],
        "/api/memory": lambda: [admin_memory.routes(_memory_parts(gateway, check_in_person), authenticate)],
        "/api/settings": lambda: [admin_settings.routes(lambda: describe_settings(gateway.settings), authenticate, authorize)],
        "/api/audit": lambda: [admin_audit.routes(database, authenticate, authorize, verifier)],
        "/api/cost": lambda: [admin_cost.routes(_cost_parts(gateway, access), authenticate, authorize)],
        "/api/deadletters": lambda: [admin_deadletters.routes(letters, authenticate, authorize)],
        "/api/retention": lambda: [admin_retention.prune_routes(retention, authenticate, authorize, size)],
        "/api/holds": lambda: [admin_retention.hold_routes(retention, authenticate, authorize, size)],
    }


def _memory_parts(gateway: Gateway, check_in_person: RequireInPerson) -> admin_memory.MemoryParts:
    memory = gateway.memory
    return admin_memory.MemoryParts(memory.access, memory.contexts, memory.quarantines, gateway.authorize, check_in_person)


def _workflow_areas(gateway: Gateway, access: RegistryAccess, authenticate: TokenGuard, check_in_person: RequireInPerson) -> RouteAreas:
    """Returns the areas of workflows, runs, checkpoints and events. The engine is loaded by the first request that needs it."""
    load, size = gateway.workflows.load, gateway.settings.server.max_body
    authority, environment, notify_look = gateway.rulings.authority, gateway.rulings.environment, gateway.stores.tasks.notify_look

    def has_permission(caller: Caller, permission: str) -> bool:
        return environment.has_permission(caller.principal, caller.delegation.effective_permissions(), permission)

    permissions = admin_runs.RunPermissions(authority.could_allow, gateway.authorize, check_in_person, gateway.authorize, has_permission)
    run_access = admin_operations.RunAccess(gateway.workflows.load_operations, permissions, notify_look)
    may_answer = admin_checkpoints.CheckpointAccess(permissions).may_answer
    sight, starter = (
        admin_runs.RunSight(load, permissions, notify_look, may_answer),
        admin_runs.RunStarter(gateway.calls.agents, gateway.registry),
    )
    return {
        "/api/workflows": lambda: [
            admin_documents.routes(access, load, authenticate, size, refused_documents=gateway.workflows.folder.refused_documents),
            admin_relaxing.routes(access, load, gateway.authorize, authenticate),
            admin_runs.runs_of_workflow_routes(starter, sight, authenticate),
        ],
        "/api/runs": lambda: [
            admin_runs.run_routes(starter, sight, authenticate),
            admin_run_events.routes(sight, load, gateway.open_streams, authenticate),
            admin_operations.operation_routes(run_access, authenticate),
            admin_operations.successor_routes(run_access, gateway.calls.agents, gateway.registry, authenticate),
        ],
        "/api/checkpoints": lambda: [
            admin_checkpoints.checkpoint_routes(
                load, permissions, authenticate, feed=gateway.webhooks.notices, open_streams=gateway.open_streams
            )
        ],
        "/api/triggers": lambda: [admin_events.trigger_routes(gateway.workflows.load_events, access, authenticate, size)],
    }
