"""POST /oauth/revoke: an agent revokes a token or ticket it was issued, with all grants below it (RFC 7009)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.calls.revocation.grants import Revocation
from gateway.ingress.http.rejected_credentials import LogRejection
from gateway.ingress.http.route_descriptions import describe_form
from gateway.ingress.oauth.client import ClientAuthentication
from gateway.ingress.oauth.endpoint import NO_STORE, ClientEndpoint, CountRequest
from gateway.ingress.oauth.sign_in.clients.store import is_client_of_people
from gateway.ingress.oauth.sign_in.tokens import PersonGrants
from policies.keys.strict_jwt import TokenRefused
from policies.tokens.hop_tokens import ExchangeRefused
from policies.tokens.tickets import Tickets
from policies.tokens.verifier import TokenVerifier
from registry.cards.card import Registration


@dataclass(frozen=True, slots=True)
class GrantReturn:
    """Authenticates the client, finds the grant of a token or ticket, and revokes it."""

    client_authentication: ClientAuthentication
    issued_tokens: TokenVerifier
    tickets: Tickets
    revocation: Revocation

    async def find_grant_id(self, client: Registration, token: str) -> str:
        """Returns the grant of a valid token or ticket that this client was issued, else "".

        Raises ExchangeRefused for a token of the client that belongs to no grant.
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
            raise ExchangeRefused("unsupported_token_type", "a token for an identity assertion can't be revoked; it expires")
        return claims.grant_id


def routes(
    grant_return: GrantReturn, log_rejection: LogRejection, count_request: CountRequest, person_grants: PersonGrants | None = None
) -> APIRouter:
    """Returns the route of the revocation endpoint. A request that names its client in the form and proves nothing is of a person's client.

    The answer is the same whether the token was revoked now or before, is unknown, or belongs to another client. A client can't learn from
    it which tokens exist.
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

    async def revoke_session(request: Request, form: Mapping[str, str]) -> Response | None:
        if person_grants is None or "authorization" in request.headers or not is_client_of_people(form.get("client_id", "")):
            return None
        await person_grants.revoke(form)
        return Response(headers=NO_STORE)

    @router.post("/oauth/revoke", response_class=Response, openapi_extra=describe_form(("token",), ("token_type_hint",)))
    async def revoke(request: Request) -> Response:
        return await endpoint.answer(request, revoke_presented, partial(revoke_session, request))

    return router
