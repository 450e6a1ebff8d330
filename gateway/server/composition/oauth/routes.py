"""Builds the routes of OAuth: metadata, tokens, revocation, sign-in, and the pages where people connect accounts."""

import time

from gateway.calls.authorizer import RequireInPerson
from gateway.calls.revocation.grants import Revocation
from gateway.ingress.admin.api import RouteAreas, Routers, TokenGuard
from gateway.ingress.http.authentication import RequestAuthentication
from gateway.ingress.http.proofs import RequestProofs
from gateway.ingress.oauth import connect, metadata, revoke, token
from gateway.ingress.oauth.client import ClientAuthentication
from gateway.ingress.oauth.sign_in import account
from gateway.ingress.oauth.sign_in import routes as sign_in_routes
from gateway.server.composition.access import authorization as rights
from gateway.server.composition.oauth.sign_in import FindSignIn, build_offer
from gateway.server.composition.process import Gateway
from policies.ids import now_us
from policies.tokens.person_tokens import PersonTokens
from policies.tokens.replay_guard import ReplayGuard
from policies.tokens.tickets import Tickets


def oauth_areas(
    gateway: Gateway,
    authentication: RequestAuthentication,
    authenticate: TokenGuard,
    clients: ClientAuthentication,
    proofs: RequestProofs,
    *,
    revocation: Revocation,
    check_in_person: RequireInPerson,
    connect_pages: connect.ConnectPages,
    find_sign_in: FindSignIn,
) -> RouteAreas:
    """Returns the areas by path. One sign-in serves all of them."""
    settings, rulings, log_rejection = gateway.settings, gateway.rulings, gateway.rejected_credentials.log_rejection
    url, count_request = settings.public_url, gateway.limits.count_request_of
    redeemer = PersonTokens(gateway.keys, rulings.token_verifier, ReplayGuard(gateway.database, now_us), rulings.minting)
    token_issuance = token.TokenIssuance(clients, rulings.hop_tokens, redeemer, proofs)
    grant_return = revoke.GrantReturn(clients, rulings.token_verifier, Tickets(gateway.database, time.time), revocation)
    issuers = [issuer.issuer for issuer in settings.identity.issuers]

    def build_connect() -> Routers:
        flow = None if (sign_in := find_sign_in()) is None else sign_in.flow
        return [connect.routes(connect_pages, gateway.oauth, authentication.authenticate_header, check_in_person, sign_in=flow)]

    def build_oauth() -> Routers:
        sign_in = find_sign_in()
        grants = None if sign_in is None else sign_in.grants
        return [
            token.routes(token_issuance, gateway.record_audit, log_rejection, count_request, person_grants=grants),
            revoke.routes(grant_return, log_rejection, count_request, grants),
            *([sign_in_routes.routes(sign_in.routes)] if sign_in is not None else []),
        ]

    return {
        "/.well-known": lambda: [
            metadata.routes(url, gateway.keys, issuers, rights.scopes_supported(settings), sign_in=build_offer(gateway)),
            connect.client_routes(gateway.own_client),
        ],
        "/connect": build_connect,
        "/oauth": build_oauth,
        "/api/whoami": lambda: [account.caller_routes(authenticate)],
        "/api/sessions": lambda: [account.session_routes(gateway.sign_in_sessions, authenticate, check_in_person)],
    }
