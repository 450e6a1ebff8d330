"""Makes all that the framework serves: the exchange of tokens, administration, discovery."""

import time
from urllib.parse import urlsplit

from adapters.oauth.authorized import approach_to
from gateway.calls.revocation.grants import Revocation
from gateway.ingress.admin import approvals as admin_approvals
from gateway.ingress.admin import connections as admin_connections
from gateway.ingress.admin import dead_letters as admin_deadletters
from gateway.ingress.admin import tasks as admin_tasks
from gateway.ingress.admin.api import TokenGuard, api
from gateway.ingress.admin.authority import audit as admin_audit
from gateway.ingress.admin.authority import authzen as admin_access
from gateway.ingress.admin.authority import decisions as admin_decisions
from gateway.ingress.admin.authority import grants as admin_grants
from gateway.ingress.admin.authority import kills as admin_kills
from gateway.ingress.admin.authority import policies as admin_policies
from gateway.ingress.admin.authority.evaluations import Evaluations
from gateway.ingress.admin.authority.oversight import Oversight
from gateway.ingress.admin.registry import agents as admin_agents
from gateway.ingress.admin.registry import discovery as admin_discovery
from gateway.ingress.admin.registry import servers as admin_servers
from gateway.ingress.admin.registry import virtual_servers as admin_virtual
from gateway.ingress.admin.registry.access import Desk, Ruling
from gateway.ingress.admin.registry.changes import Amendments
from gateway.ingress.http.authentication import Admission
from gateway.ingress.http.proofs import Proofs
from gateway.ingress.oauth import connect as oauth_connect
from gateway.ingress.oauth import metadata as oauth_metadata
from gateway.ingress.oauth import revoke as oauth_revoke
from gateway.ingress.oauth import token as oauth_token
from gateway.ingress.oauth.client import ClientAuthentication
from gateway.ingress.oauth.token import Issuing
from gateway.server.composition import authorization as rights
from gateway.server.composition.process import Gateway
from gateway.server.router import App
from policies.ids import now_us
from policies.tokens.client_assertion import ClientAssertions
from policies.tokens.dpop import Possession
from policies.tokens.person_tokens import PersonTokens
from policies.tokens.replay_guard import SpentIds
from policies.tokens.tickets import Tickets


def client_authentication(gateway: Gateway) -> ClientAuthentication:
    """How agents prove who they are, at whichever door."""
    url = gateway.settings.public_url
    assertions = ClientAssertions((url, f"{url}/oauth/token"), time.time)
    return ClientAuthentication(gateway.registry, assertions, SpentIds(gateway.database, now_us))


def proofs(gateway: Gateway, clients: ClientAuthentication) -> Proofs:
    """What is asked for beside a token."""
    url, possession = gateway.settings.public_url, Possession(gateway.keys, SpentIds(gateway.database, now_us), time.time)
    bases = (url, f"{urlsplit(url).scheme}://{gateway.settings.public_grpc}")
    return Proofs(clients, Tickets(gateway.database, time.time), possession, bases)


def rest(gateway: Gateway, admission: Admission, clients: ClientAuthentication, shown: Proofs) -> App:
    """All that the framework serves."""
    admitted, may, url = TokenGuard(admission, gateway.limits.request), gateway.authority.may, gateway.settings.public_url
    issuers = [issuer.issuer for issuer in gateway.settings.identity.issuers]
    check_in_person = rights.in_person(gateway.authority, gateway.ledger)
    ruling, size = Ruling(may, gateway.allowed, check_in_person, gateway.authority.current), gateway.settings.server.max_body
    desk = Desk(gateway.registry, ruling, gateway.search, gateway.kills, empty=gateway.empty_lists)
    amendments = Amendments(desk, gateway.registry, gateway.onboarding, gateway.renewal, gateway.refresh)
    amendments.calls = gateway.catalog.resilience.state
    oversight = Oversight(gateway.database, may, gateway.allowed)
    evaluations = Evaluations(gateway.authority, gateway.registry, gateway.database, rights.roles_now(gateway.settings))
    rules = admin_policies.Rules(gateway.settings.roles, gateway.settings.policies or "", rights.known_schema(gateway.registry))
    redeemer = PersonTokens(gateway.keys, gateway.identity, SpentIds(gateway.database, now_us), gateway.minting)
    issuing = Issuing(clients, gateway.tokens, redeemer, shown)
    revocation = Revocation(gateway.database, gateway.grants, gateway.spool, now_us, gateway.broker.halt)
    returning = oauth_revoke.Returning(clients, gateway.identity, Tickets(gateway.database, time.time), revocation)
    deciding = admin_approvals.Deciding(may, gateway.allowed, check_in_person, gateway.resuming.round)
    about = admin_servers.About(gateway.tools.said, lambda entry: gateway.oauth.forget_registration(approach_to(entry)))
    accounts = admin_connections.Accounts(gateway.vault, desk.known, gateway.keep, check_in_person, gateway.oauth.revoke)
    return api(
        admission,
        [
            oauth_metadata.routes(url, gateway.keys, issuers, rights.scopes_supported(gateway.settings)),
            oauth_connect.client_routes(gateway.own_client),
            oauth_connect.routes(gateway.connections, gateway.oauth, gateway.own_client, admission.bearer, check_in_person),
            oauth_token.routes(issuing, gateway.keep, gateway.refusals.note, gateway.limits.ask),
            oauth_revoke.routes(returning, gateway.refusals.note, gateway.limits.ask),
            admin_agents.routes(desk, amendments, gateway.onboarding, admitted, size),
            admin_servers.routes(desk, amendments, gateway.onboarding, admitted, size, about=about),
            admin_virtual.routes(desk, gateway.registry, admitted, size),
            admin_tasks.routes(gateway.database, gateway.memory.tasks, admitted, gateway.places, oversight=oversight),
            admin_decisions.routes(gateway.database, admitted, may),
            admin_grants.routes(revocation, admitted, may, check_in_person),
            admin_kills.routes(gateway.killing, admitted, may, gateway.allowed, size),
            admin_approvals.routes(gateway.approvals, admitted, deciding),
            admin_audit.routes(gateway.database, admitted, gateway.allowed),
            admin_discovery.catalog_routes(gateway.registry, gateway.front_door, url),
            admin_discovery.routes(desk, admitted, url),
            admin_access.metadata_routes(url),
            admin_access.routes(evaluations, admin_access.Askers(may, gateway.allowed), admitted, size),
            admin_policies.routes(gateway.database, rules, admitted, gateway.allowed, size),
            admin_connections.routes(accounts, admitted),
            admin_deadletters.routes(gateway.outbox, admitted, gateway.allowed),
        ],
        is_operator=desk.operator,
    )
