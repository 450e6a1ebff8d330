"""Which agent is at an endpoint for clients: proved by its secret or by a key of its own, never by what it says."""

import base64
from collections.abc import Mapping
from typing import Protocol

from starlette.requests import Request

from gateway.ingress.http.asgi import BadHeader, header
from gateway.ingress.http.proofs import ASSERTION_TYPE
from gateway.ingress.oauth.form import decode
from policies.keys.strict_jwt import TokenRefused
from policies.tokens.client_assertion import Assertion, ClientAssertions, claimed_client
from policies.tokens.hop_tokens import ExchangeRefused
from policies.tokens.replay_guard import SpentIds
from registry.cards.card import Family, Registration


class Clients(Protocol):
    """registry/store.py: the agents that hold credentials of this gateway."""

    def client(self, client_id: str) -> Registration | None: ...

    def verify_secret(self, client_id: str, secret: str) -> bool: ...

    def client_jwks(self, client_id: str) -> str:
        """The key set that the agent registered, as JSON; empty when it has none."""
        ...


class ClientAuthentication:
    """client_secret_basic (RFC 6749 s2.3.1) or private_key_jwt (RFC 7523), one of them, once."""

    def __init__(self, clients: Clients, assertions: ClientAssertions, spent: SpentIds) -> None:
        self._clients = clients
        self._assertions = assertions
        self._spent = spent

    async def authenticate(self, authorization: str | None, form: Mapping[str, str]) -> Registration:
        """The agent that asks. Raises ExchangeRefused; `invalid_client` says the same of an unknown and of an unproved one."""
        asserted = "client_assertion" in form or "client_assertion_type" in form
        if authorization is not None and asserted:
            raise ExchangeRefused("invalid_request", "two ways of client authentication at once")
        if asserted:
            client = await self._by_assertion(form)
        elif authorization is not None:
            client = self._by_secret(authorization)
        else:
            raise ExchangeRefused("invalid_client", "client authentication by client_secret_basic or private_key_jwt is needed")
        if form.get("client_id", client.client_id) != client.client_id:
            raise ExchangeRefused("invalid_request", "client_id is not that of the authenticated client")
        return client

    def _by_secret(self, authorization: str) -> Registration:
        client_id, secret = _basic(authorization)
        client = self._active(client_id)
        if not secret or not self._clients.verify_secret(client_id, secret):
            raise _unproved()
        return client

    async def _by_assertion(self, form: Mapping[str, str]) -> Registration:
        if form.get("client_assertion_type") != ASSERTION_TYPE or "client_assertion" not in form:
            raise ExchangeRefused("invalid_request", f"client_assertion and its type {ASSERTION_TYPE} go together")
        text = form["client_assertion"]
        try:
            client = self._active(claimed_client(text))
            assertion = self._assertions.verify(text, client.client_id, self._clients.client_jwks(client.client_id))
        except TokenRefused:
            raise _unproved() from None
        if not await self._first_use(client, assertion):
            raise _unproved()
        return client

    async def _first_use(self, client: Registration, assertion: Assertion) -> bool:
        return await self._spent.spend(client.tenant, f"client-assertion {client.client_id} {assertion.id}", assertion.not_after)

    def _active(self, client_id: str) -> Registration:
        client = self._clients.client(client_id)
        if client is None or not client.may_act or client.family is not Family.AGENT:
            raise _unproved()
        return client


def authorization(request: Request) -> str | None:
    """Raises ExchangeRefused when it stands twice."""
    try:
        return header(request.scope, b"authorization")
    except BadHeader as error:
        raise ExchangeRefused("invalid_request", str(error)) from None


def _unproved() -> ExchangeRefused:
    return ExchangeRefused("invalid_client", "the client is not known, or did not prove that it is the one it claims to be")


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError(scheme)
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode("ascii").partition(":")
        return decode(client_id), decode(secret)
    except ValueError:
        raise _unproved() from None
