"""What some callers show beside a token: a proof that they hold its key, or a ticket and who they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.ingress.http.asgi import Scope, header
from policies.keys.strict_jwt import TokenRefused
from policies.tokens.dpop import Possession, ProofRefused, Shown
from policies.tokens.hop_tokens import ExchangeRefused
from policies.tokens.tickets import Tickets

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION = b"interlock-client-assertion"
_PROVED = "interlock.proved"  # in a request's scope: what it showed was taken, and is not asked for again while it lasts


class Agent(Protocol):
    """registry/cards/card.py: Registration."""

    @property
    def tenant(self) -> str: ...
    @property
    def name(self) -> str: ...


class Clients(Protocol):
    """gateway/ingress/oauth/client.py."""

    async def authenticate(self, authorization: str | None, form: Mapping[str, str]) -> Agent: ...


@dataclass(frozen=True, slots=True)
class Holder:
    """An agent that proved who it is, and the grant that its ticket stands for."""

    tenant: str
    agent: str
    grant_id: str


class Proofs:
    """Asks for them. `bases` are our public URL and that of the gRPC door, which proofs have to name."""

    def __init__(self, clients: Clients, tickets: Tickets, possession: Possession, bases: tuple[str, str]) -> None:
        self._clients = clients
        self._tickets = tickets
        self._possession = possession
        self._public_url, self._grpc_url = bases

    async def possessed(self, scope: Scope | None, token: str, tenant: str, thumbprint: str) -> None:
        """Whether the caller holds the key that its token is bound to. Raises ProofRefused, BadHeader."""
        if scope is None:
            raise ProofRefused("missing")
        if scope.get(_PROVED) == token:
            return
        path = (scope.get("raw_path") or scope["path"].encode()).decode("ascii", "replace")
        url = f"{self._grpc_url if scope['type'] == 'grpc' else self._public_url}{path}"
        await self._possession.check(Shown(header(scope, b"dpop"), scope["method"], url, token), tenant, thumbprint)
        scope[_PROVED] = token

    async def key(self, scope: Scope, tenant: str) -> str:
        """The thumbprint of the key that the token to come is to be bound to; empty when none is shown. Raises ProofRefused, BadHeader."""
        proof = header(scope, b"dpop")
        if proof is None:
            return ""
        return await self._possession.check(Shown(proof, scope["method"], f"{self._public_url}{scope['path']}"), tenant)

    async def holder(self, scope: Scope, handle: str) -> Holder:
        """The agent that was handed the ticket, and no other. Raises TokenRefused, BadHeader."""
        known: Agent | None = scope.get(_PROVED)
        agent = known or await self._authenticated(scope)
        ticket = await self._tickets.find(agent.tenant, handle)
        if ticket is None or ticket.agent != agent.name:
            raise TokenRefused("ticket")
        scope[_PROVED] = agent
        return Holder(agent.tenant, agent.name, ticket.grant_id)

    async def _authenticated(self, scope: Scope) -> Agent:
        assertion = header(scope, ASSERTION)
        form = {} if assertion is None else {"client_assertion": assertion, "client_assertion_type": ASSERTION_TYPE}
        try:
            return await self._clients.authenticate(header(scope, b"authorization"), form)
        except ExchangeRefused:
            raise TokenRefused("client") from None
