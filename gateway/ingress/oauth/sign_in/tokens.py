"""Tokens for people's clients: for a code, a refresh token or an approved device (RFC 6749 s4.1.3 and s6, RFC 8628 s3.4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.ingress.http.asgi import BadHeader
from gateway.ingress.http.proofs import ASSERTION_TYPE, RequestProofs
from gateway.ingress.oauth.endpoint import NO_STORE
from gateway.ingress.oauth.sign_in.clients.store import (
    AUTHORIZATION_CODE,
    DEVICE_CODE,
    DOCUMENT_PREFIX,
    REFRESH_TOKEN,
    SignInClient,
    SignInClients,
    UnknownClient,
)
from gateway.ingress.oauth.sign_in.devices import Devices
from gateway.ingress.oauth.sign_in.providers.logins import ProviderAway
from gateway.ingress.oauth.sign_in.providers.renewal import SessionOver, SessionRenewal
from gateway.ingress.oauth.sign_in.scopes import BadScope, narrow_scope
from gateway.ingress.oauth.sign_in.sessions import SECOND_US, CodeProof, Session, SignInSessions, SpentToken, check_resource
from policies.keys.strict_jwt import TokenRefused
from policies.tokens.client_assertion import ClientAssertionVerifier
from policies.tokens.hop_tokens import ExchangeRefused
from policies.tokens.replay_guard import ReplayGuard
from policies.tokens.session_tokens import SessionGrant, SessionTokens
from policies.tokens.verifier import TokenVerifier

PERSON_GRANTS = (AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE)
_TOKEN_MEMBERS = {AUTHORIZATION_CODE: "code", REFRESH_TOKEN: "refresh_token"}  # of the form; devices are of other clients


class ProviderUnavailable(ExchangeRefused):
    """The identity provider could not be asked; the refresh token can be used again."""

    def __init__(self) -> None:
        super().__init__("temporarily_unavailable", "the identity provider can't be reached; use the refresh token again later")


@dataclass(frozen=True, slots=True)
class ClientChecks:
    """Checks the client of a token request: public clients name themselves, others prove a key (RFC 7523)."""

    clients: SignInClients
    assertions: ClientAssertionVerifier
    replay_guard: ReplayGuard

    async def find(self, form: Mapping[str, str]) -> SignInClient:
        """The client of a request. Raises ExchangeRefused."""
        try:
            client = await self.clients.find(form.get("client_id", ""))
        except UnknownClient as error:
            raise ExchangeRefused("invalid_client", str(error)) from None
        if client.jwks:
            await self._check_assertion(client, form)
        elif "client_secret" in form or "client_assertion" in form:
            raise ExchangeRefused("invalid_client", "this client is public and has no secret")
        return client

    async def _check_assertion(self, client: SignInClient, form: Mapping[str, str]) -> None:
        """Checks that a client with keys proves one of them, with an assertion that was not used before. Raises ExchangeRefused."""
        refusal = ExchangeRefused("invalid_client", "the client has to authenticate with private_key_jwt")
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise refusal
        try:
            assertion = self.assertions.verify(form.get("client_assertion", ""), client.id, client.jwks)
        except TokenRefused:
            raise refusal from None
        if not await self.replay_guard.consume("", f"client-assertion {client.id} {assertion.id}", assertion.not_after):
            raise refusal


class PersonGrants:
    """Answers token requests of people's clients, and their revocations."""

    def __init__(
        self,
        checks: ClientChecks,
        sessions: SignInSessions,
        devices: Devices,
        renewal: SessionRenewal,
        tokens: SessionTokens,
        *,
        proofs: RequestProofs,
        verifier: TokenVerifier,
    ) -> None:
        self._checks = checks
        self._sessions = sessions
        self._devices = devices
        self._renewal = renewal
        self._tokens = tokens
        self._proofs = proofs
        self._verifier = verifier

    async def answer(self, request: Request, form: Mapping[str, str]) -> Response:
        """Returns tokens. Raises ExchangeRefused and ProofRefused."""
        grant = form["grant_type"]
        if not await self._may_look_up(form.get("client_id", ""), form.get(_TOKEN_MEMBERS.get(grant, ""), "")):
            raise ExchangeRefused("invalid_grant", "the code or refresh token is not one of this client; sign in again")
        client, thumbprint = await self._checks.find(form), await self._thumbprint(request)
        if grant not in client.grants:
            raise ExchangeRefused("unauthorized_client", "this client may not use this grant type")
        if grant == AUTHORIZATION_CODE:
            return await self._redeem_code(client, form, thumbprint)
        if grant == DEVICE_CODE:
            session = await self._devices.redeem(form.get("device_code", ""), client.id)
            return await self._begin(client, session, thumbprint)
        return await self._refresh(client, form, thumbprint)

    async def revoke(self, form: Mapping[str, str]) -> None:
        """Ends the session of a token of this client (RFC 7009). Unknown tokens are no error. Raises ExchangeRefused."""
        token = form.get("token", "")
        if not await self._may_look_up(form.get("client_id", ""), token):
            return
        client = await self._checks.find(form)
        session = await self._sessions.find_by_refresh_token(token, client.id)
        if session is None and token.count(".") == 2:
            session = await self._find_by_access_token(token, client.id)
        if session is not None:
            await self._sessions.end(session, "revoked")

    async def _may_look_up(self, client_id: str, token: str) -> bool:
        """Whether to look for a client. The metadata document of one is only fetched for a token that it holds.

        These requests need no credential, and so have no rate: others could have the gateway fetch documents from anywhere.
        """
        if not client_id.startswith(DOCUMENT_PREFIX) or await self._sessions.holds_token(token, client_id):
            return True
        return token.count(".") == 2 and await self._find_by_access_token(token, client_id) is not None

    async def _find_by_access_token(self, token: str, client_id: str) -> Session | None:
        try:
            claims = self._verifier.read_issued(token)
        except TokenRefused:
            return None
        return await self._sessions.find(claims.tenant, claims.session_id) if claims.client_id == client_id and claims.session_id else None

    async def _redeem_code(self, client: SignInClient, form: Mapping[str, str], thumbprint: str) -> Response:
        if "code" not in form:
            raise ExchangeRefused("invalid_request", "code is missing")
        proof = CodeProof(client.id, form.get("redirect_uri", ""), form.get("code_verifier", ""), form.get("resource", ""))
        spent = await self._sessions.redeem_code(form["code"], proof)
        return await self._begin(client, spent.session, thumbprint)

    async def _begin(self, client: SignInClient, session: Session, thumbprint: str) -> Response:
        """The first tokens of a session."""
        begun = self._sessions.begun_session(session, thumbprint)
        refresh_token = await self._sessions.renew(begun, REFRESH_TOKEN in client.grants)
        return self._answer(begun, begun.scope, refresh_token)

    async def _refresh(self, client: SignInClient, form: Mapping[str, str], thumbprint: str) -> Response:
        if "refresh_token" not in form:
            raise ExchangeRefused("invalid_request", "refresh_token is missing")
        spent = await self._sessions.spend_refresh_token(form["refresh_token"], client.id)
        try:
            scope = _check_refresh(form, spent.session, thumbprint)
        except ExchangeRefused:
            await self._sessions.give_back(spent)
            raise
        renewed, refresh_token = await self._renew(spent)
        return self._answer(renewed, scope, refresh_token)

    async def _renew(self, spent: SpentToken) -> tuple[Session, str]:
        """The session with the roles of now, and its next refresh token. Raises ExchangeRefused where it is over."""
        try:
            return await self._renewal.renew(spent.session, with_refresh_token=True)
        except SessionOver as over:
            raise ExchangeRefused("invalid_grant", str(over)) from None
        except ProviderAway:
            await self._sessions.give_back(spent)
            raise ProviderUnavailable from None

    async def _thumbprint(self, request: Request) -> str:
        """The thumbprint of the key that the request proves (RFC 9449), or "". Raises ProofRefused and ExchangeRefused.

        It is checked before a code is used up, since the client may have to repeat the request with a nonce.
        """
        try:
            return await self._proofs.find_key_thumbprint(request.scope, "")
        except BadHeader as error:
            raise ExchangeRefused("invalid_request", str(error)) from None

    def _answer(self, session: Session, scope: str, refresh_token: str) -> Response:
        given = (session.id, session.client_id, session.resource, scope, session.until / SECOND_US, session.thumbprint)
        token, seconds = self._tokens.mint(SessionGrant(session.person.principal, *given))
        body: dict[str, Any] = {
            "access_token": token,
            "token_type": "DPoP" if session.thumbprint else "Bearer",
            "expires_in": seconds,
            "scope": scope,
            **({"refresh_token": refresh_token} if refresh_token else {}),
        }
        return JSONResponse(body, headers=NO_STORE)


def _check_refresh(form: Mapping[str, str], session: Session, thumbprint: str) -> str:
    """The scope of the refreshed token. Raises ExchangeRefused for a request that does not fit the session."""
    check_resource(form.get("resource", ""), session)
    if session.thumbprint != thumbprint:
        raise ExchangeRefused("invalid_grant", "the refresh token is bound to another key")
    try:
        return narrow_scope(form.get("scope", ""), session.scope)
    except BadScope as error:
        raise ExchangeRefused("invalid_scope", str(error)) from None
