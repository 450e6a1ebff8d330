"""A sign-in from the consent to its end: a code for a client, an approved device, or a page of the gateway that goes on."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from starlette.requests import Request
from starlette.responses import Response

from gateway.ingress.oauth.pages import html_page, leaving_page, sentence_html, with_parameters
from gateway.ingress.oauth.sign_in.clients.store import BROWSER, SignInClients
from gateway.ingress.oauth.sign_in.consent import ConsentExpired, ConsentPages, OpenConsent, expired_page
from gateway.ingress.oauth.sign_in.devices import Devices, UnknownDevice
from gateway.ingress.oauth.sign_in.providers.logins import LoginFailed, ProviderLogins
from gateway.ingress.oauth.sign_in.rates import AddressRates, address_of
from gateway.ingress.oauth.sign_in.requests import Purpose
from gateway.ingress.oauth.sign_in.sessions import CodeBinding, SignedInPerson, SignInSessions
from policies.delegation.chain import Principal
from policies.delegation.kills import Killed
from policies.tokens.claims import DEVELOPMENT_ISSUER
from policies.tokens.replay_guard import ReplayGuard

DEVELOPMENT_TENANT: Final = "default"
log = structlog.get_logger()


class CompletePage(Protocol):
    """Goes on with a page of the gateway once its person has signed in. `reference` is what `begin_page` was given."""

    def __call__(self, request: Request, person: SignedInPerson, reference: str) -> Awaitable[Response]: ...


@dataclass(frozen=True, slots=True)
class SignInParts:
    """What a sign-in depends on. `check_person` raises Killed for a person that an operator has stopped. `issuer` is the public URL."""

    pages: ConsentPages
    clients: SignInClients
    logins: ProviderLogins
    sessions: SignInSessions
    devices: Devices
    replay_guard: ReplayGuard
    check_person: Callable[[Principal], Awaitable[None]]
    issuer: str
    page_rates: AddressRates  # of sign-ins that pages of the gateway begin


class SignIn:
    """Signs people in. `complete_pages` are the ends of the gateway's own pages, by name."""

    def __init__(self, parts: SignInParts, complete_pages: Mapping[str, CompletePage]) -> None:
        self._parts = parts
        self._complete_pages = complete_pages

    def begin_page(self, request: Request, page: str, reference: str, text: str) -> Response:
        """The sign-in of a page of the gateway. `text` says in words what it is for; the entry of `page` completes it.

        Raises RateLimited.
        """
        self._parts.page_rates.count(address_of(request))
        purpose = Purpose("page", BROWSER, text, page=page, reference=reference)
        return self._parts.pages.show(request, purpose)

    async def answer_consent(self, request: Request, form: Mapping[str, str]) -> Response:
        """Answers the form of the consent page: refuses, signs in as a development user, or leads to a provider."""
        parts = self._parts
        try:
            consent = parts.pages.read(request, form)
            await self._use_once(consent)
        except ConsentExpired:
            return expired_page()
        kind, _, name = form.get("login", "refused").partition(" ")
        if kind == "development" and form.get("user", "") in parts.pages.development_users:
            principal = Principal(DEVELOPMENT_TENANT, DEVELOPMENT_ISSUER, form["user"])
            return await self._finish(request, consent.purpose, SignedInPerson(principal, ""))
        provider = parts.logins.providers.get(name)
        if kind != "provider" or provider is None:
            return await self._refuse(consent.purpose, "access_denied", "the person refused")
        try:
            url = await parts.logins.begin(provider, consent.purpose, parts.pages.cookie_of(request))
        except LoginFailed as failure:
            return await self._refuse(consent.purpose, "temporarily_unavailable", str(failure))
        return leaving_page("Signing in", url, provider.label)

    async def answer_provider(self, request: Request, name: str, answer: Mapping[str, str]) -> Response:
        """Answers the return from a provider."""
        try:
            purpose, person = await self._parts.logins.complete(name, answer, self._parts.pages.cookie_of(request))
        except LoginFailed as failure:
            if failure.purpose is None:
                return html_page("Not signed in", sentence_html(str(failure)), 400)
            return await self._refuse(failure.purpose, "access_denied", str(failure))
        return await self._finish(request, purpose, person)

    async def _use_once(self, consent: OpenConsent) -> None:
        """Raises ConsentExpired for a form that was sent before."""
        if not await self._parts.replay_guard.consume("", f"sign-in {consent.id}", consent.not_after):
            raise ConsentExpired

    async def _finish(self, request: Request, purpose: Purpose, person: SignedInPerson) -> Response:
        parts = self._parts
        try:
            await parts.check_person(person.principal)
        except Killed:
            return await self._refuse(purpose, "access_denied", "an operator has stopped this person")
        if purpose.kind == "page":
            return await self._complete_pages[purpose.page](request, person, purpose.reference)
        session = parts.sessions.new_session(person, purpose.client_id, purpose.client_name, purpose.resource, purpose.scope)
        log.info("signed_in", principal=person.principal.owner_key, client=purpose.client_id, resource=purpose.resource)
        if purpose.kind == "device":
            try:
                await parts.devices.approve(purpose.reference, session)
            except UnknownDevice:
                return expired_page()
            return html_page("Signed in", "<p>The command goes on by itself. You can close this page.</p>")
        binding = CodeBinding(purpose.redirect_uri, purpose.challenge)
        code = await parts.sessions.open_with_code(session, binding, lambda batch: parts.clients.note_use(batch, purpose.client_id))
        answer = {"code": code, "state": purpose.state, "iss": parts.issuer}
        return leaving_page("Signed in", with_parameters(purpose.redirect_uri, answer), purpose.place)

    async def _refuse(self, purpose: Purpose, error: str, description: str) -> Response:
        """Tells the client or device, and the person, that the sign-in ended without a code."""
        if purpose.kind == "code":
            return leaving_page("Not signed in", self.error_url(purpose.redirect_uri, purpose.state, error, description), purpose.place)
        if purpose.kind == "device":
            await self._parts.devices.deny(purpose.reference)
        return html_page("Not signed in", sentence_html(description), 403)

    def error_url(self, redirect_uri: str, state: str, error: str, description: str) -> str:
        """The redirect URI with an error (RFC 6749 s4.1.2.1), the state and `iss` (RFC 9207)."""
        plain = "".join(mark if " " <= mark <= "~" and mark not in '"\\' else "?" for mark in description)
        return with_parameters(redirect_uri, {"error": error, "error_description": plain, "state": state, "iss": self._parts.issuer})
