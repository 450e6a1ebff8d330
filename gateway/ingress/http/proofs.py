"""Credentials beside a token: a DPoP proof of the token's key, or a ticket with the client authentication of its agent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.ingress.http.asgi import Scope, header
from policies.keys.strict_jwt import TokenRefused
from policies.tokens.dpop import DpopVerifier, PresentedProof, ProofRefused
from policies.tokens.hop_tokens import ExchangeRefused
from policies.tokens.tickets import Tickets
from registry.cards.card import Registration

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_HEADER = b"interlock-client-assertion"
# in a request's scope: what was verified, and is not verified again for this request
_POSSESSION_KEY = "interlock.proved_token"  # the token whose possession the caller has proved
_PROVED_AGENT_KEY = "interlock.proved_agent"  # the agent that has authenticated as a client


class ClientAuthenticator(Protocol):
    """Authenticates OAuth clients; gateway/ingress/oauth/client.py implements it."""

    async def authenticate(self, authorization: str | None, form: Mapping[str, str]) -> Registration: ...


@dataclass(frozen=True, slots=True)
class TicketHolder:
    """An agent that authenticated with a ticket, and the grant that the ticket refers to."""

    tenant: str
    agent: str
    grant_id: str


class RequestProofs:
    """Verifies DPoP proofs and tickets of requests. A proof names the gateway's public URL, or the URL of its gRPC server."""

    def __init__(
        self, clients: ClientAuthenticator, tickets: Tickets, dpop_verifier: DpopVerifier, *, public_url: str, grpc_url: str
    ) -> None:
        self._clients = clients
        self._tickets = tickets
        self._dpop_verifier = dpop_verifier
        self._public_url, self._grpc_url = public_url, grpc_url

    async def check_possession(self, scope: Scope | None, token: str, tenant: str, thumbprint: str) -> None:
        """Verifies that the caller holds the key that its token is bound to. Raises ProofRefused, BadHeader."""
        if scope is None:
            raise ProofRefused("missing")
        if scope.get(_POSSESSION_KEY) == token:
            return
        path = (scope.get("raw_path") or scope["path"].encode()).decode("ascii", "replace")
        url = f"{self._grpc_url if scope['type'] == 'grpc' else self._public_url}{path}"
        await self._dpop_verifier.verify(PresentedProof(header(scope, b"dpop"), scope["method"], url, token), tenant, thumbprint)
        scope[_POSSESSION_KEY] = token

    async def find_key_thumbprint(self, scope: Scope, tenant: str) -> str:
        """Returns the thumbprint of the key to bind a new token to, or "" when the request has no proof.

        Raises ProofRefused, BadHeader.
        """
        proof = header(scope, b"dpop")
        if proof is None:
            return ""
        return await self._dpop_verifier.verify(PresentedProof(proof, scope["method"], f"{self._public_url}{scope['path']}"), tenant)

    async def find_ticket_holder(self, scope: Scope, handle: str) -> TicketHolder:
        """Returns the authenticated agent and its grant. Raises TokenRefused when the ticket is not the agent's, and BadHeader."""
        known: Registration | None = scope.get(_PROVED_AGENT_KEY)
        agent = known or await self._authenticate_agent(scope)
        ticket = await self._tickets.find(agent.tenant, handle)
        if ticket is None or ticket.agent != agent.name:
            raise TokenRefused("ticket")
        scope[_PROVED_AGENT_KEY] = agent
        return TicketHolder(agent.tenant, agent.name, ticket.grant_id)

    async def _authenticate_agent(self, scope: Scope) -> Registration:
        assertion = header(scope, ASSERTION_HEADER)
        form = {} if assertion is None else {"client_assertion": assertion, "client_assertion_type": ASSERTION_TYPE}
        try:
            return await self._clients.authenticate(header(scope, b"authorization"), form)
        except ExchangeRefused:
            raise TokenRefused("client") from None
