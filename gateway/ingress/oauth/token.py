"""POST /oauth/token: issues a token for a token that the agent holds (RFC 8693), or for an identity assertion (ID-JAG)."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gateway.ingress.http.asgi import BadHeader
from gateway.ingress.http.proofs import RequestProofs
from gateway.ingress.http.rejected_credentials import LogRejection
from gateway.ingress.http.route_descriptions import describe_form
from gateway.ingress.oauth.client import ClientAuthentication
from gateway.ingress.oauth.endpoint import NO_STORE, ClientEndpoint, CountRequest, error_response
from gateway.ingress.oauth.sign_in.tokens import PERSON_GRANTS, PersonGrants
from policies.tokens.dpop import ProofRefused
from policies.tokens.hop_tokens import ExchangeRefused, GrantReference, HopTokens, TokenExchangeRequest, TokenExchangeResponse
from policies.tokens.person_tokens import AssertionExchangeRequest, PersonTokens
from registry.cards.card import Registration

EXCHANGE_METHOD = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIT_TEXT_MAX = 256  # characters


@dataclass(frozen=True, slots=True)
class TokenIssuance:
    """The parts of the token endpoint: client authentication, both kinds of issuance, and DPoP proofs."""

    client_authentication: ClientAuthentication
    exchanger: HopTokens
    redeemer: PersonTokens
    key_thumbprints: RequestProofs


RecordAudit = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Makes one audit record durable. When it raises, no token is issued."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request of an authenticated client; `thumbprint` is that of the key to bind the token to, or ""."""

    client: Registration
    form: Mapping[str, str]
    thumbprint: str

    @property
    def record_members(self) -> dict[str, Any]:
        """Returns the members that every audit record of this request has."""
        return {"kind": "exchange", "tenant": self.client.tenant, "decision_id": "", "agent": self.client.name}

    @property
    def key_members(self) -> dict[str, str]:
        return {"thumbprint": self.thumbprint} if self.thumbprint else {}


OPTIONAL_PARAMETERS = (
    *("subject_token", "subject_token_type", "assertion", "resource", "scope", "client_assertion", "client_assertion_type"),
    *("client_id", "code", "redirect_uri", "code_verifier", "refresh_token", "device_code"),
)


def routes(
    token_issuance: TokenIssuance,
    record_audit: RecordAudit,
    log_rejection: LogRejection,
    count_request: CountRequest,
    *,
    person_grants: PersonGrants | None = None,
) -> APIRouter:
    """Returns the route of the token endpoint. `person_grants` answers the clients of people; None while sign-in is off."""
    router = APIRouter(tags=["oauth"])
    endpoint = ClientEndpoint(token_issuance.client_authentication, log_rejection, count_request)

    async def issue(request: Request, client: Registration, form: Mapping[str, str]) -> Response:
        try:
            token_request = TokenRequest(
                client, form, await token_issuance.key_thumbprints.find_key_thumbprint(request.scope, client.tenant)
            )
        except ProofRefused as unproved:
            return _dpop_refusal_response(unproved)
        except BadHeader as error:
            raise ExchangeRefused("invalid_request", str(error)) from None
        if form.get("grant_type") == JWT_BEARER:
            return _token_response(await _redeem(token_request, token_issuance.redeemer, record_audit))
        return _token_response(await _exchange(token_request, token_issuance.exchanger, record_audit))

    async def issue_to_person(request: Request, form: Mapping[str, str]) -> Response | None:
        if person_grants is None or form.get("grant_type") not in PERSON_GRANTS:
            return None
        try:
            return await person_grants.answer(request, form)
        except ProofRefused as unproved:
            return _dpop_refusal_response(unproved)

    @router.post("/oauth/token", response_class=JSONResponse, openapi_extra=describe_form(("grant_type",), OPTIONAL_PARAMETERS))
    async def token(request: Request) -> Response:
        return await endpoint.answer(request, partial(issue, request), partial(issue_to_person, request))

    return router


async def _exchange(request: TokenRequest, exchanger: HopTokens, record_audit: RecordAudit) -> TokenExchangeResponse:
    """Exchanges or renews a token. Both a token and a refusal to a known client are written to the audit."""
    try:
        exchange_request = _parse_exchange_request(request)
        exchanged = await (
            exchanger.renew(exchange_request) if exchanger.is_renewal(exchange_request) else exchanger.exchange(exchange_request)
        )
    except ExchangeRefused as refusal:
        await record_audit(_refusal_record(request, refusal))
        raise
    delegation = exchanged.delegation
    assert delegation is not None
    pointer = GrantReference(
        delegation.principal.issuer, delegation.principal.subject, delegation.txn, delegation.task_id, delegation.grant_id
    )
    outcome_members = {
        "resource": exchange_request.resource,
        "scope": exchanged.scope,
        **request.key_members,
        **({"renewed": True} if exchanged.renewed else {}),
    }
    await record_audit({**request.record_members, **_grant_members(pointer), "allowed": True, **outcome_members})
    return exchanged


async def _redeem(request: TokenRequest, redeemer: PersonTokens, record_audit: RecordAudit) -> TokenExchangeResponse:
    """Redeems an identity assertion (RFC 7523 s2.1, ID-JAG). Both a token and a refusal are written to the audit."""
    form, client = request.form, request.client
    try:
        if "assertion" not in form:
            raise ExchangeRefused("invalid_request", "assertion is missing")
        assertion_members = (form["assertion"], form.get("resource", ""), form.get("scope", ""), request.thumbprint)
        redeemed = await redeemer.redeem(AssertionExchangeRequest(client.tenant, client.name, client.client_id, *assertion_members))
    except ExchangeRefused as refusal:
        await record_audit(_refusal_record(request, refusal))
        raise
    outcome_members = {"resource": form.get("resource", ""), "scope": redeemed.token.scope, **request.key_members}
    await record_audit({**request.record_members, **_grant_members(redeemed.grant_reference), "allowed": True, **outcome_members})
    return redeemed.token


def _refusal_record(request: TokenRequest, refusal: ExchangeRefused) -> dict[str, Any]:
    outcome_members = {
        "error": refusal.error,
        "why": str(refusal)[:AUDIT_TEXT_MAX],
        "resource": request.form.get("resource", "")[:AUDIT_TEXT_MAX],
    }
    return {**request.record_members, **_grant_members(refusal.grant_reference), "allowed": False, **outcome_members}


def _grant_members(pointer: GrantReference | None) -> dict[str, Any]:
    """Returns the members that name the grant. A refusal has them only from a token that the gateway signed for this tenant."""
    if pointer is None:
        return {"txn": ""}
    principal = {"issuer": pointer.issuer, "subject": pointer.subject}
    return {"txn": pointer.txn, "task_id": pointer.task_id, "grant_id": pointer.grant_id, "principal": principal}


def _parse_exchange_request(request: TokenRequest) -> TokenExchangeRequest:
    """Reads a token exchange (RFC 8693 s2.1) with exactly one resource and an explicit scope; nothing is defaulted.

    An agent that renews its own token names its own URL, and may omit the scope, which then stays. Raises ExchangeRefused.
    """
    client, form = request.client, request.form
    if "grant_type" not in form:
        raise ExchangeRefused("invalid_request", "grant_type is missing")
    if form["grant_type"] != EXCHANGE_METHOD:
        raise ExchangeRefused("unsupported_grant_type", f"only {EXCHANGE_METHOD} and {JWT_BEARER} are served to agents")
    for name in ("subject_token", "subject_token_type", "resource", "scope"):
        if name not in form and not (name == "scope" and form.get("resource") == client.url):
            raise ExchangeRefused("invalid_request", f"{name} is missing")
    for name in ("audience", "actor_token", "actor_token_type"):
        if name in form:
            raise ExchangeRefused("invalid_request", f"{name} is not supported: the client is the actor, and resource names the target")
    for name in ("subject_token_type", "requested_token_type"):
        if form.get(name, ACCESS_TOKEN) != ACCESS_TOKEN:
            raise ExchangeRefused("invalid_request", f"{name} must be {ACCESS_TOKEN}")
    return TokenExchangeRequest(
        client.tenant, client.name, client.url, form["subject_token"], form["resource"], form.get("scope", ""), request.thumbprint
    )


def _token_response(exchanged: TokenExchangeResponse) -> JSONResponse:
    body = {
        "access_token": exchanged.access_token,
        **({} if exchanged.delegation is None else {"issued_token_type": ACCESS_TOKEN}),
        "token_type": "DPoP" if exchanged.is_key_bound else "Bearer",
        "expires_in": exchanged.expires_in,
        "scope": exchanged.scope,
    }
    return JSONResponse(body, headers=NO_STORE)


def _dpop_refusal_response(refusal: ProofRefused) -> JSONResponse:
    """Returns the DPoP error of RFC 9449 s5 and s8."""
    description = "the DPoP proof is not a fresh one of its key for this request"
    return error_response(refusal.error, description, headers={"dpop-nonce": refusal.nonce} if refusal.nonce else None)
