"""POST /oauth/token: an agent exchanges the token it was handed for a narrower one of its own (RFC 8693)."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from gateway.asgi import BadHeader, BodyTooLarge, header, read_body
from gateway.oauth.client import ClientAuthentication
from gateway.oauth.form import FORM_MAX, parse_form
from gateway.refusals import Noted
from policies.hop_tokens import Errand, Exchange, Exchanged, ExchangeRefused
from registry.card import Registration

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
WHY_MAX = 256  # characters
_NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}  # RFC 6749 s5.1


class Exchanger(Protocol):
    """policies/hop_tokens.py."""

    async def exchange(self, asked: Exchange) -> Exchanged: ...


Keep = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Makes one audit record durable; raises when it can't, and then no token leaves."""


def routes(clients: ClientAuthentication, exchanger: Exchanger, keep: Keep, noted: Noted) -> APIRouter:
    """The token endpoint. `noted` hears of clients that nobody knows: they are nobody's to keep an audit record of."""
    router = APIRouter(tags=["oauth"])

    @router.post("/oauth/token")
    async def token(request: Request) -> JSONResponse:
        try:
            form = parse_form(await _body(request), request.headers.get("content-type"))
            client = await clients.authenticate(_authorization(request), form)
            return _answer(await _exchanged(client, form, exchanger, keep))
        except ExchangeRefused as refusal:
            if refusal.error == "invalid_client":
                noted("client", "/oauth/token", request.headers.get("authorization", ""))
            return _refusal(refusal)

    return router


async def _body(request: Request) -> bytes:
    try:
        return await read_body(request.scope, request.receive, FORM_MAX)
    except (BodyTooLarge, BadHeader) as error:
        raise ExchangeRefused("invalid_request", str(error)) from None


def _authorization(request: Request) -> str | None:
    try:
        return header(request.scope, b"authorization")
    except BadHeader as error:
        raise ExchangeRefused("invalid_request", str(error)) from None


async def _exchanged(client: Registration, form: Mapping[str, str], exchanger: Exchanger, keep: Keep) -> Exchanged:
    """A refusal is kept too, once it is known who asked."""
    about = {"kind": "exchange", "tenant": client.tenant, "decision_id": "", "agent": client.name}
    try:
        asked = _asked(client, form)
        exchanged = await exchanger.exchange(asked)
    except ExchangeRefused as refusal:
        told = {"error": refusal.error, "why": str(refusal)[:WHY_MAX], "resource": form.get("resource", "")[:WHY_MAX]}
        await keep({**about, **_errand(refusal.errand), "allowed": False, **told})
        raise
    delegation = exchanged.delegation
    errand = Errand(delegation.principal.issuer, delegation.principal.subject, delegation.txn, delegation.task_id, delegation.grant_id)
    await keep({**about, **_errand(errand), "allowed": True, "resource": asked.resource, "scope": exchanged.scope})
    return exchanged


def _errand(errand: Errand | None) -> dict[str, Any]:
    """Whose task it was for; of a refusal only what a token told that we had signed for this tenant."""
    if errand is None:
        return {"txn": ""}
    principal = {"issuer": errand.issuer, "subject": errand.subject}
    return {"txn": errand.txn, "task_id": errand.task_id, "grant_id": errand.grant_id, "principal": principal}


def _asked(client: Registration, form: Mapping[str, str]) -> Exchange:
    """RFC 8693 s2.1. Exactly one resource and an explicit scope: nothing is defaulted to all that is held."""
    if "grant_type" not in form:
        raise ExchangeRefused("invalid_request", "grant_type is missing")
    if form["grant_type"] != TOKEN_EXCHANGE:
        raise ExchangeRefused("unsupported_grant_type", f"only {TOKEN_EXCHANGE} is served here")
    for name in ("subject_token", "subject_token_type", "resource", "scope"):
        if name not in form:
            raise ExchangeRefused("invalid_request", f"{name} is missing")
    for name in ("audience", "actor_token", "actor_token_type"):
        if name in form:
            raise ExchangeRefused("invalid_request", f"{name} is not taken: the client is the actor, and resource names the target")
    for name in ("subject_token_type", "requested_token_type"):
        if form.get(name, ACCESS_TOKEN) != ACCESS_TOKEN:
            raise ExchangeRefused("invalid_request", f"{name} must be {ACCESS_TOKEN}")
    return Exchange(client.tenant, client.name, client.url, form["subject_token"], form["resource"], form["scope"])


def _answer(exchanged: Exchanged) -> JSONResponse:
    body = {
        "access_token": exchanged.access_token,
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": exchanged.expires_in,
        "scope": exchanged.scope,
    }
    return JSONResponse(body, headers=_NO_STORE)


def _refusal(refusal: ExchangeRefused) -> JSONResponse:
    """RFC 6749 s5.2."""
    unproved = refusal.error == "invalid_client"
    challenge = {"www-authenticate": 'Basic realm="interlock", charset="UTF-8"'} if unproved else {}
    body = {"error": refusal.error, "error_description": _description(str(refusal))}
    return JSONResponse(body, 401 if unproved else 400, headers={**_NO_STORE, **challenge})


def _description(text: str) -> str:
    """The characters that RFC 6749 s5.2 allows there."""
    return "".join(mark if " " <= mark <= "~" and mark not in '"\\' else "?" for mark in text)
