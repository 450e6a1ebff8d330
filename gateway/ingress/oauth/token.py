"""POST /oauth/token: an agent gets a token for the token it was handed (RFC 8693), or for an identity assertion (ID-JAG)."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gateway.ingress.http.asgi import BadHeader, Scope
from gateway.ingress.http.rejected_credentials import Noted
from gateway.ingress.http.route_descriptions import takes_form
from gateway.ingress.oauth.client import ClientAuthentication
from gateway.ingress.oauth.endpoint import NO_STORE, Asked, Endpoint
from policies.tokens.dpop import ProofRefused
from policies.tokens.hop_tokens import Exchange, Exchanged, ExchangeRefused, Pointer
from policies.tokens.person_tokens import Redeemed, Redeeming
from registry.cards.card import Registration

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
WHY_MAX = 256  # characters


class Exchanger(Protocol):
    """policies/tokens/hop_tokens.py."""

    async def exchange(self, asked: Exchange) -> Exchanged: ...

    def is_renewal(self, asked: Exchange) -> bool: ...

    async def renew(self, asked: Exchange) -> Exchanged: ...


class Redeemer(Protocol):
    """policies/tokens/person_tokens.py."""

    async def redeem(self, asked: Redeeming) -> Redeemed: ...


class Keys(Protocol):
    """gateway/ingress/http/proofs.py."""

    async def key(self, scope: Scope, tenant: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Issuing:
    """Who authenticates clients, who makes tokens, and who says which key they are bound to."""

    clients: ClientAuthentication
    exchanger: Exchanger
    redeemer: Redeemer
    keys: Keys


Keep = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Makes one audit record durable; raises when it can't, and then no token leaves."""


@dataclass(frozen=True, slots=True)
class Given:
    """Who asks, with what, and the thumbprint of the key that the token is to be bound to, or nothing."""

    client: Registration
    form: Mapping[str, str]
    thumbprint: str

    @property
    def about(self) -> dict[str, Any]:
        """Of the audit's record."""
        return {"kind": "exchange", "tenant": self.client.tenant, "decision_id": "", "agent": self.client.name}

    @property
    def bound(self) -> dict[str, str]:
        return {"thumbprint": self.thumbprint} if self.thumbprint else {}


MEMBERS = ("subject_token", "subject_token_type", "assertion", "resource", "scope", "client_assertion", "client_assertion_type")


def routes(issuing: Issuing, keep: Keep, noted: Noted, asked: Asked) -> APIRouter:
    """The token endpoint."""
    router = APIRouter(tags=["oauth"])
    endpoint = Endpoint(issuing.clients, noted, asked)

    async def issue(request: Request, client: Registration, form: Mapping[str, str]) -> Response:
        try:
            given = Given(client, form, await issuing.keys.key(request.scope, client.tenant))
        except ProofRefused as unproved:
            return _unproved(unproved)
        except BadHeader as error:
            raise ExchangeRefused("invalid_request", str(error)) from None
        if form.get("grant_type") == JWT_BEARER:
            return _answer(await _redeemed(given, issuing.redeemer, keep))
        return _answer(await _exchanged(given, issuing.exchanger, keep))

    @router.post("/oauth/token", response_class=JSONResponse, openapi_extra=takes_form(("grant_type",), MEMBERS))
    async def token(request: Request) -> Response:
        return await endpoint.answer(request, partial(issue, request))

    return router


async def _exchanged(given: Given, exchanger: Exchanger, keep: Keep) -> Exchanged:
    """A refusal is kept too, once it is known who asked."""
    try:
        asked = _asked(given)
        exchanged = await (exchanger.renew(asked) if exchanger.is_renewal(asked) else exchanger.exchange(asked))
    except ExchangeRefused as refusal:
        await keep(_refused(given, refusal))
        raise
    delegation = exchanged.delegation
    assert delegation is not None
    pointer = Pointer(delegation.principal.issuer, delegation.principal.subject, delegation.txn, delegation.task_id, delegation.grant_id)
    told = {"resource": asked.resource, "scope": exchanged.scope, **given.bound, **({"renewed": True} if exchanged.renewed else {})}
    await keep({**given.about, **_pointed(pointer), "allowed": True, **told})
    return exchanged


async def _redeemed(given: Given, redeemer: Redeemer, keep: Keep) -> Exchanged:
    """As an exchange, of an identity assertion (RFC 7523 s2.1, ID-JAG)."""
    form, client = given.form, given.client
    try:
        if "assertion" not in form:
            raise ExchangeRefused("invalid_request", "assertion is missing")
        asked = (form["assertion"], form.get("resource", ""), form.get("scope", ""), given.thumbprint)
        redeemed = await redeemer.redeem(Redeeming(client.tenant, client.name, client.client_id, *asked))
    except ExchangeRefused as refusal:
        await keep(_refused(given, refusal))
        raise
    told = {"resource": form.get("resource", ""), "scope": redeemed.token.scope, **given.bound}
    await keep({**given.about, **_pointed(redeemed.pointer), "allowed": True, **told})
    return redeemed.token


def _refused(given: Given, refusal: ExchangeRefused) -> dict[str, Any]:
    told = {"error": refusal.error, "why": str(refusal)[:WHY_MAX], "resource": given.form.get("resource", "")[:WHY_MAX]}
    return {**given.about, **_pointed(refusal.pointer), "allowed": False, **told}


def _pointed(pointer: Pointer | None) -> dict[str, Any]:
    """Whose task it was for; of a refusal only what a token told that we had signed for this tenant."""
    if pointer is None:
        return {"txn": ""}
    principal = {"issuer": pointer.issuer, "subject": pointer.subject}
    return {"txn": pointer.txn, "task_id": pointer.task_id, "grant_id": pointer.grant_id, "principal": principal}


def _asked(given: Given) -> Exchange:
    """RFC 8693 s2.1. Exactly one resource and an explicit scope: nothing is defaulted to all that is held.

    An agent that renews the token which it was handed names its own URL, and may leave the scope out: it stays what it was.
    """
    client, form = given.client, given.form
    if "grant_type" not in form:
        raise ExchangeRefused("invalid_request", "grant_type is missing")
    if form["grant_type"] != TOKEN_EXCHANGE:
        raise ExchangeRefused("unsupported_grant_type", f"only {TOKEN_EXCHANGE} and {JWT_BEARER} are served here")
    for name in ("subject_token", "subject_token_type", "resource", "scope"):
        if name not in form and not (name == "scope" and form.get("resource") == client.url):
            raise ExchangeRefused("invalid_request", f"{name} is missing")
    for name in ("audience", "actor_token", "actor_token_type"):
        if name in form:
            raise ExchangeRefused("invalid_request", f"{name} is not taken: the client is the actor, and resource names the target")
    for name in ("subject_token_type", "requested_token_type"):
        if form.get(name, ACCESS_TOKEN) != ACCESS_TOKEN:
            raise ExchangeRefused("invalid_request", f"{name} must be {ACCESS_TOKEN}")
    return Exchange(
        client.tenant, client.name, client.url, form["subject_token"], form["resource"], form.get("scope", ""), given.thumbprint
    )


def _answer(exchanged: Exchanged) -> JSONResponse:
    body = {
        "access_token": exchanged.access_token,
        **({} if exchanged.delegation is None else {"issued_token_type": ACCESS_TOKEN}),
        "token_type": "DPoP" if exchanged.bound else "Bearer",
        "expires_in": exchanged.expires_in,
        "scope": exchanged.scope,
    }
    return JSONResponse(body, headers=NO_STORE)


def _unproved(refusal: ProofRefused) -> JSONResponse:
    """RFC 9449 s5 and s8."""
    body = {"error": refusal.error, "error_description": "the DPoP proof is not a fresh one of its key for this request"}
    return JSONResponse(body, 400, headers={**NO_STORE, **({"dpop-nonce": refusal.nonce} if refusal.nonce else {})})
