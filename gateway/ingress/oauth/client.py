"""Authenticates agents as OAuth clients, by a secret or by a key of their own."""

import base64
from collections.abc import Mapping

from starlette.requests import Request

from gateway.ingress.http.asgi import BadHeader, header
from gateway.ingress.http.proofs import ASSERTION_TYPE
from gateway.ingress.oauth.form import decode_form_text
from policies.keys.strict_jwt import TokenRefused
from policies.tokens.client_assertion import Assertion, ClientAssertionVerifier, claimed_client_id
from policies.tokens.hop_tokens import ExchangeRefused
from policies.tokens.replay_guard import ReplayGuard
from registry.cards.card import Family, Registration
from registry.store import Registry


class ClientAuthentication:
    """Authenticates by client_secret_basic (RFC 6749 s2.3.1) or private_key_jwt (RFC 7523). A request uses exactly one of them."""

    def __init__(self, credentials: Registry, assertions: ClientAssertionVerifier, replay_guard: ReplayGuard) -> None:
        self._credentials = credentials
        self._assertions = assertions
        self._replay_guard = replay_guard

    async def authenticate(self, authorization: str | None, form: Mapping[str, str]) -> Registration:
        """Returns the agent. Raises ExchangeRefused; `invalid_client` does not tell whether the client is unknown or its proof wrong."""
        asserted = "client_assertion" in form or "client_assertion_type" in form
        if authorization is not None and asserted:
            raise ExchangeRefused("invalid_request", "the request uses two methods of client authentication")
        if asserted:
            client = await self._authenticate_by_assertion(form)
        elif authorization is not None:
            client = self._authenticate_by_secret(authorization)
        else:
            raise ExchangeRefused("invalid_client", "client authentication by client_secret_basic or private_key_jwt is needed")
        if form.get("client_id", client.client_id) != client.client_id:
            raise ExchangeRefused("invalid_request", "client_id differs from the authenticated client")
        return client

    def _authenticate_by_secret(self, authorization: str) -> Registration:
        client_id, secret = _parse_basic(authorization)
        client = self._find_active_client(client_id)
        if not secret or not self._credentials.verify_secret(client_id, secret):
            raise _invalid_client()
        return client

    async def _authenticate_by_assertion(self, form: Mapping[str, str]) -> Registration:
        if form.get("client_assertion_type") != ASSERTION_TYPE or "client_assertion" not in form:
            raise ExchangeRefused("invalid_request", f"client_assertion and its type {ASSERTION_TYPE} go together")
        text = form["client_assertion"]
        try:
            client = self._find_active_client(claimed_client_id(text))
            assertion = self._assertions.verify(text, client.client_id, self._credentials.jwks_of_client(client.client_id))
        except TokenRefused:
            raise _invalid_client() from None
        if not await self._is_first_use(client, assertion):
            raise _invalid_client()
        return client

    async def _is_first_use(self, client: Registration, assertion: Assertion) -> bool:
        return await self._replay_guard.consume(client.tenant, f"client-assertion {client.client_id} {assertion.id}", assertion.not_after)

    def _find_active_client(self, client_id: str) -> Registration:
        client = self._credentials.find_client(client_id)
        if client is None or not client.may_act or client.family is not Family.AGENT:
            raise _invalid_client()
        return client


def read_authorization(request: Request) -> str | None:
    """Returns the Authorization header. Raises ExchangeRefused when it occurs twice."""
    try:
        return header(request.scope, b"authorization")
    except BadHeader as error:
        raise ExchangeRefused("invalid_request", str(error)) from None


def _invalid_client() -> ExchangeRefused:
    return ExchangeRefused("invalid_client", "the client is unknown, or its authentication is not valid")


def _parse_basic(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError(scheme)
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode("ascii").partition(":")
        return decode_form_text(client_id), decode_form_text(secret)
    except ValueError:
        raise _invalid_client() from None
