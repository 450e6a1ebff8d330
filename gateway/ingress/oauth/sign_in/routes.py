"""/oauth/authorize, /oauth/consent, /oauth/callback and /oauth/device: the pages of a sign-in; /oauth/register: clients register here."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from gateway.calls.limits.meters import LimitReached
from gateway.ingress.http.asgi import BadHeader, BodyTooLarge, read_body
from gateway.ingress.http.route_descriptions import describe_form, describe_object_body
from gateway.ingress.oauth.endpoint import NO_STORE, error_response, rate_limited_response
from gateway.ingress.oauth.form import read_form
from gateway.ingress.oauth.pages import escape, html_page, sentence_html
from gateway.ingress.oauth.sign_in.clients.redirects import Redirect
from gateway.ingress.oauth.sign_in.clients.store import (
    DEVICE_CODE,
    BadRegistration,
    SignInClient,
    SignInClients,
    TooManyClients,
    UnknownClient,
)
from gateway.ingress.oauth.sign_in.consent import ConsentPages
from gateway.ingress.oauth.sign_in.devices import CODE_LENGTH, DEVICE_SECONDS, INTERVAL_SECONDS, Devices, UnknownDevice, WaitingDevice
from gateway.ingress.oauth.sign_in.flow import SignIn
from gateway.ingress.oauth.sign_in.rates import IN_TOTAL, PER_ADDRESS, AddressRates, address_of
from gateway.ingress.oauth.sign_in.requests import (
    Audiences,
    AuthorizationRefused,
    BadAuthorization,
    Purpose,
    find_redirect,
    read_request,
    single_parameters,
    state_of,
)
from gateway.ingress.oauth.sign_in.scopes import BadScope, parse_scope
from policies.strict_json import BadJson, parse
from policies.tokens.hop_tokens import ExchangeRefused

REGISTRATION_MAX: Final = 16 << 10  # bytes
DEVICE_FORM: Final = {**describe_form(("client_id",), ("scope", "resource")), "security": []}  # nothing proves such a client


@dataclass(frozen=True, slots=True)
class SignInRoutes:
    """What the routes depend on. `default_scope` is for clients that ask for none; `has_registration`: whether clients may register."""

    flow: SignIn
    pages: ConsentPages
    clients: SignInClients
    devices: Devices
    audiences: Audiences
    default_scope: Collection[str]
    has_registration: bool
    now: Callable[[], float] = time.monotonic


def routes(parts: SignInRoutes) -> APIRouter:
    """Returns the routes of sign-in."""
    router = APIRouter(tags=["oauth"])
    _add_pages(router, parts, AddressRates(PER_ADDRESS, IN_TOTAL, parts.now))
    device_rates = AddressRates(PER_ADDRESS, IN_TOTAL, parts.now)
    _add_device_page(router, parts, device_rates)
    _add_device_endpoint(router, parts, device_rates)
    if parts.has_registration:
        _add_registration(router, parts.clients, AddressRates(PER_ADDRESS, IN_TOTAL, parts.now))
    return router


def _add_pages(router: APIRouter, parts: SignInRoutes, rates: AddressRates) -> None:
    @router.get("/oauth/authorize", include_in_schema=False)
    async def authorize(request: Request) -> Response:
        try:
            rates.count(address_of(request))
            parameters = single_parameters(request.query_params.multi_items())
            client = await parts.clients.find(parameters.get("client_id", ""))
            redirect = find_redirect(parameters, client, parts.clients.private_uris)
        except LimitReached as reached:
            return _busy_page(reached)
        except (BadAuthorization, UnknownClient) as problem:
            return html_page("This request can't be answered", sentence_html(str(problem)), 400)
        try:
            purpose = read_request(parameters, client, redirect, parts.audiences, parts.default_scope)
        except AuthorizationRefused as refused:
            url = parts.flow.error_url(redirect.uri, state_of(parameters), refused.error, str(refused))
            return _refused_response(url, client, redirect, str(refused))
        return parts.pages.show(request, purpose)

    @router.post("/oauth/consent", include_in_schema=False)
    async def consent(request: Request) -> Response:
        try:
            rates.count(address_of(request))
            return await parts.flow.answer_consent(request, await read_form(request))
        except LimitReached as reached:
            return _busy_page(reached)
        except ExchangeRefused as refused:
            return html_page("This form can't be read", sentence_html(str(refused)), 400)

    @router.get("/oauth/callback/{provider}", include_in_schema=False)
    async def callback(provider: str, request: Request) -> Response:
        try:
            answer = single_parameters(request.query_params.multi_items())
        except BadAuthorization as problem:
            return html_page("Not signed in", sentence_html(str(problem)), 400)
        return await parts.flow.answer_provider(request, provider, answer)


def _add_device_page(router: APIRouter, parts: SignInRoutes, rates: AddressRates) -> None:
    @router.get("/oauth/device", include_in_schema=False)
    async def show_device(request: Request) -> Response:
        typed = request.query_params.get("user_code", "")
        if not typed:
            return _code_page("", 200)
        try:
            rates.count(address_of(request))
            device = await parts.devices.find(typed)
            client = await parts.clients.find(device.client_id)
        except LimitReached as reached:
            return _busy_page(reached)
        except (UnknownDevice, UnknownClient):
            return _code_page("<p><b>No command waits with that code. It may have expired.</b></p>", 404)
        return parts.pages.show(request, _device_purpose(device, client, typed))


def _add_device_endpoint(router: APIRouter, parts: SignInRoutes, rates: AddressRates) -> None:
    @router.post("/oauth/device", response_class=JSONResponse, openapi_extra=DEVICE_FORM)
    async def begin_device(request: Request) -> Response:
        try:
            rates.count(address_of(request))
            form = await read_form(request)
            client = await parts.clients.find(form.get("client_id", ""))
            if DEVICE_CODE not in client.grants:
                raise ExchangeRefused("unauthorized_client", "this client may not use device codes")
            resource = parts.audiences.choose(form.get("resource", ""), client)
            codes = await parts.devices.begin(client.id, resource, parse_scope(form.get("scope", ""), parts.default_scope))
        except LimitReached as reached:
            return rate_limited_response(reached)
        except UnknownClient as problem:
            return error_response("invalid_client", str(problem), 401)
        except (ExchangeRefused, AuthorizationRefused) as refused:
            return error_response(refused.error, str(refused))
        except BadScope as problem:
            return error_response("invalid_scope", str(problem))
        return JSONResponse(_device_answer(parts.audiences.public_url, codes.device_code, codes.user_code), headers=NO_STORE)


def _add_registration(router: APIRouter, clients: SignInClients, rates: AddressRates) -> None:
    @router.post("/oauth/register", response_class=JSONResponse, openapi_extra=describe_object_body("Client metadata (RFC 7591 s2)."))
    async def register(request: Request) -> Response:
        try:
            rates.count(address_of(request))
            client, _ = await clients.register(parse(await read_body(request.scope, request.receive, REGISTRATION_MAX)))
        except LimitReached as reached:
            return rate_limited_response(reached)
        except TooManyClients as problem:
            return error_response("temporarily_unavailable", str(problem), 503, {"retry-after": "3600"})
        except BadRegistration as refused:
            return error_response(refused.error, str(refused))
        except (BadJson, BodyTooLarge, BadHeader):
            return error_response("invalid_client_metadata", f"the body must be a JSON object of at most {REGISTRATION_MAX} bytes")
        return JSONResponse(_registration_answer(client), 201, headers=NO_STORE)


def _registration_answer(client: SignInClient) -> Mapping[str, Any]:
    """What the client is registered with (RFC 7591 s3.2.1), which may differ from what it asked for."""
    return {
        "client_id": client.id,
        "client_id_issued_at": int(time.time()),
        "client_name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "grant_types": list(client.grants),
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    }


def _device_answer(public_url: str, device_code: str, user_code: str) -> Mapping[str, Any]:
    """The answer of RFC 8628 s3.2."""
    shown = f"{user_code[: CODE_LENGTH // 2]}-{user_code[CODE_LENGTH // 2 :]}"
    page = f"{public_url}/oauth/device"
    return {
        "device_code": device_code,
        "user_code": shown,
        "verification_uri": page,
        "verification_uri_complete": f"{page}?user_code={shown}",
        "expires_in": DEVICE_SECONDS,
        "interval": INTERVAL_SECONDS,
    }


def _device_purpose(device: WaitingDevice, client: SignInClient, typed: str) -> Purpose:
    place = f"the command that shows the code {typed.upper()[:32]}"
    given = {"place": place, "resource": device.resource, "scope": device.scope, "reference": device.id}
    return Purpose("device", client.id, client.name, client.kind, **given)


def _refused_response(url: str, client: SignInClient, redirect: Redirect, problem: str) -> Response:
    """Tells the client about its error. A web address that no operator registered is only linked: a redirect would be open to abuse."""
    if client.kind == "operator" or redirect.kind != "https":
        return RedirectResponse(url, 303, NO_STORE)
    link = f'<a href="{escape(url)}" rel="noreferrer">Go back to {escape(redirect.place)}</a>'
    return html_page("This request can't be answered", sentence_html(problem) + f"<p>{link}</p>", 400)


def _code_page(problem_html: str, status: int) -> HTMLResponse:
    form = (
        '<form method="get" action="/oauth/device"><p><label>The code that the command shows<br>'
        '<input name="user_code" autocomplete="off" autocapitalize="characters" required></label></p>'
        "<p><button>Continue</button></p></form>"
    )
    return html_page("Connect a command", problem_html + form, status)


def _busy_page(reached: LimitReached) -> HTMLResponse:
    page = html_page("Too many requests", sentence_html(str(reached)), 429)
    page.headers["retry-after"] = str(reached.retry_after)
    return page
