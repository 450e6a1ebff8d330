"""Builds the sign-in of people, where providers or development users are set up."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from adapters.oauth.grants import OAuthRequests
from gateway.ingress.http.proofs import RequestProofs
from gateway.ingress.oauth.metadata import SignInOffer
from gateway.ingress.oauth.sign_in.clients.documents import ClientDocuments
from gateway.ingress.oauth.sign_in.clients.store import RegistrationLimits, SignInClient, SignInClients
from gateway.ingress.oauth.sign_in.consent import ConsentPages, LoginChoices
from gateway.ingress.oauth.sign_in.devices import Devices
from gateway.ingress.oauth.sign_in.flow import CompletePage, SignIn, SignInParts
from gateway.ingress.oauth.sign_in.providers.logins import Provider, ProviderLogins
from gateway.ingress.oauth.sign_in.providers.renewal import SessionRenewal
from gateway.ingress.oauth.sign_in.rates import IN_TOTAL, PER_ADDRESS, AddressRates
from gateway.ingress.oauth.sign_in.requests import Audiences
from gateway.ingress.oauth.sign_in.routes import SignInRoutes
from gateway.ingress.oauth.sign_in.sessions import SignInSessions
from gateway.ingress.oauth.sign_in.tokens import ClientChecks, PersonGrants
from gateway.server.composition.process import Gateway
from gateway.server.sections.sign_in import SignInProviderSettings
from gateway.server.settings import Settings, resolve_credential
from policies.delegation.chain import Principal
from policies.ids import new_id, now_us
from policies.tokens.client_assertion import ClientAssertionVerifier
from policies.tokens.replay_guard import ReplayGuard
from policies.tokens.session_tokens import SessionTokens


@dataclass(frozen=True, slots=True)
class SignInServer:
    """The parts of sign-in that routes use. `flow` begins and completes the sign-in of the gateway's own pages."""

    flow: SignIn
    routes: SignInRoutes
    grants: PersonGrants
    sessions: SignInSessions
    renewal: SessionRenewal


FindSignIn = Callable[[], SignInServer | None]


def build_sign_in(gateway: Gateway, proofs: RequestProofs, complete_pages: Mapping[str, CompletePage]) -> SignInServer | None:
    """Builds sign-in; None while sign-in is off. `complete_pages` are the ends of the gateway's own pages, by name."""
    settings, url = gateway.settings, gateway.settings.public_url
    if not settings.has_sign_in:
        return None
    section, database = settings.sign_in, gateway.database
    replay_guard, audiences = ReplayGuard(database, now_us), Audiences(url)
    clients = _build_clients(gateway)
    sessions = gateway.sign_in_sessions
    devices = Devices(database, sessions, now_us)
    logins = ProviderLogins(
        database,
        gateway.egress.fetch,
        OAuthRequests(gateway.egress, gateway.own_client),
        gateway.rulings.token_verifier.verify_id_token,
        {name: _provider(name, each) for name, each in section.providers.items()},
        public_url=url,
        now=now_us,
    )
    pages = ConsentPages(gateway.keys, LoginChoices(logins.providers, _development_users(settings)), url)

    async def check_person(person: Principal) -> None:
        kills = gateway.rulings.kills
        if not database.is_fresh():
            await kills.reload()
        kills.check_person(person.tenant, person.issuer, person.subject)

    page_rates = AddressRates(PER_ADDRESS, IN_TOTAL, time.monotonic)
    flow = SignIn(SignInParts(pages, clients, logins, sessions, devices, replay_guard, check_person, url, page_rates), complete_pages)
    tokens = SessionTokens(gateway.keys, url, section.token_life, new_id)
    checks = ClientChecks(clients, ClientAssertionVerifier((url, f"{url}/oauth/token"), time.time), replay_guard)
    renewal = SessionRenewal(database, sessions, logins, section.token_life, now_us)
    grants = PersonGrants(checks, sessions, devices, renewal, tokens, proofs=proofs, verifier=gateway.rulings.token_verifier)
    routes = SignInRoutes(flow, pages, clients, devices, audiences, tuple(section.scopes), section.registration)
    return SignInServer(flow, routes, grants, sessions, renewal)


def build_offer(gateway: Gateway) -> SignInOffer | None:
    """What the metadata say about sign-in; None while it is off."""
    section = gateway.settings.sign_in
    if not gateway.settings.has_sign_in:
        return None
    return SignInOffer(tuple(section.scopes), has_registration=section.registration, has_documents=section.documents)


def _build_clients(gateway: Gateway) -> SignInClients:
    section = gateway.settings.sign_in
    named = section.clients.items()
    known = {name: SignInClient(name, "operator", each.name, tuple(each.redirect_uris), has_api=each.api) for name, each in named}
    limits = RegistrationLimits(section.clients_max, section.client_life)
    documents = ClientDocuments(gateway.egress.fetch, section.redirect_uris, time.monotonic) if section.documents else None
    find_document = documents.find if documents is not None else None
    return SignInClients(gateway.database, known, limits, section.redirect_uris, now=now_us, find_document=find_document)


def _provider(name: str, settings: SignInProviderSettings) -> Provider:
    label = settings.label or urlsplit(settings.issuer).netloc
    secret = partial(resolve_credential, settings.client_secret) if settings.client_secret else str
    roles_in_access_token = settings.roles_from == "access_token"
    parts = (settings.issuer, settings.client_id, secret, settings.auth_method, tuple(settings.scopes), roles_in_access_token)
    return Provider(name, label, *parts, settings.prompt)


def _development_users(settings: Settings) -> tuple[str, ...]:
    """The development users that one may choose from: those of the settings, and the operator."""
    if not settings.has_development_sign_in:
        return ()
    return tuple(dict.fromkeys((*(settings.users or ("alice",)), "admin")))
