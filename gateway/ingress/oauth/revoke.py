"""POST /oauth/revoke: an agent gives back what it was handed, and all that hangs below it ends (RFC 7009)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.ingress.http.rejected_credentials import LogRejection
from gateway.ingress.http.route_descriptions import describe_form
from gateway.ingress.oauth.client import ClientAuthentication
from gateway.ingress.oauth.endpoint import NO_STORE, ClientEndpoint, CountRequest
from policies.keys.strict_jwt import TokenRefused
from policies.tokens.claims import Claims
from policies.tokens.hop_tokens import ExchangeRefused
from policies.tokens.tickets import Ticket
from registry.cards.card import Registration


class IssuedTokens(Protocol):
    """policies/tokens/verifier.py."""

    def read_issued(self, token: str) -> Claims: ...


class TicketSource(Protocol):
    """policies/tokens/tickets.py."""

    async def find(self, tenant: str, handle: str) -> Ticket | None: ...


class GrantRevocation(Protocol):
    """gateway/calls/revocation/grants.py."""

    async def revoke_by_agent(self, tenant: str, agent: str, grant_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class GrantReturn:
    """Who authenticates clients, what tells which grant a token or a ticket stands for, and what ends it."""

    client_authentication: ClientAuthentication
    issued_tokens: IssuedTokens
    tickets: TicketSource
    revocation: GrantRevocation

    async def find_grant_id(self, client: Registration, token: str) -> str:
        """Empty unless it is a token or ticket that this client was given, and whose time is not over.

        Raises ExchangeRefused for one of the client's own that stands for no grant.
        """
        ticket = await self.tickets.find(client.tenant, token)
        if ticket is not None:
            return ticket.grant_id if ticket.agent == client.name else ""
        try:
            claims = self.issued_tokens.read_issued(token)
        except TokenRefused:
            return ""
        if claims.tenant != client.tenant or claims.client_id != (client.name if claims.kind == "hop" else client.client_id):
            return ""
        if claims.kind != "hop":
            raise ExchangeRefused("unsupported_token_type", "a token for an identity assertion stands for no grant; it ends by itself")
        return claims.grant_id


def routes(grant_return: GrantReturn, log_rejection: LogRejection, count_request: CountRequest) -> APIRouter:
    """The revocation endpoint.

    The answer is the same for what was ended now, for what had ended, and for what is unknown or somebody else's: nobody can try out
    here what there is.
    """
    router = APIRouter(tags=["oauth"])
    endpoint = ClientEndpoint(grant_return.client_authentication, log_rejection, count_request)

    async def revoke_presented(client: Registration, form: Mapping[str, str]) -> Response:
        if "token" not in form:
            raise ExchangeRefused("invalid_request", "token is missing")
        grant_id = await grant_return.find_grant_id(client, form["token"])
        if grant_id:
            await grant_return.revocation.revoke_by_agent(client.tenant, client.name, grant_id)
        return Response(headers=NO_STORE)

    @router.post("/oauth/revoke", response_class=Response, openapi_extra=describe_form(("token",), ("token_type_hint",)))
    async def revoke(request: Request) -> Response:
        return await endpoint.answer(request, revoke_presented)

    return router
