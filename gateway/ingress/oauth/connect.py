"""/connect: pages where the person of a call allows the gateway to use their account at a server."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from adapters.contract import UpstreamFault
from adapters.oauth.authorized import UpstreamOAuth
from adapters.oauth.grants import OwnClient, consent_url
from adapters.upstream.targets import EgressRefused
from gateway.calls.authorizer import CallRefused, RequireInPerson
from gateway.calls.consent.account_connections import (
    MANAGE_CONNECTIONS,
    PAGE_SECONDS,
    AccountConnections,
    PendingConnection,
    UnknownConnection,
    cookie_name,
)
from gateway.ingress.http.asgi import BadHeader, BodyTooLarge, header, read_body
from gateway.ingress.oauth.form import FORM_MAX, parse_form
from gateway.ingress.oauth.pages import definitions_html, escape, html_page
from gateway.ingress.oauth.sign_in.flow import SignIn
from gateway.ingress.oauth.sign_in.sessions import SignedInPerson
from policies.callers import Caller
from policies.delegation.chain import Principal
from policies.tokens.hop_tokens import ExchangeRefused
from policies.tokens.verifier import TokenRefused

GONE_TEXT = "This page does not exist, has expired, or is for another person. Repeat the request that led you here to get a new one."
_CACHE_HEADERS = {"cache-control": "public, max-age=300", "access-control-allow-origin": "*"}
PAGE_NAME = "connect"
SIGN_IN_TEXT = "One of your requests needs your own account at another service. Sign in, so that the account is connected to you."
_SIGN_IN_FORM = """<p>One of your requests needs your own account at another service. Enter the access token that you use with
Interlock, so that the account is connected to you and to no other person
(<code>interlock token</code> prints one on a development gateway).</p>
<form method="post" autocomplete="off"><p><label>Access token<br><input type="password" name="token" required></label></p>
<p><button>Continue</button></p></form>"""
log = structlog.get_logger()
AuthenticateHeader = Callable[[str, str], Awaitable[Caller]]


def client_routes(own_client: OwnClient) -> APIRouter:
    """Returns the routes of the gateway's client ID metadata documents, which are public."""
    router = APIRouter(tags=["oauth"])

    @router.get("/.well-known/oauth-client")
    async def show_metadata() -> JSONResponse:
        return JSONResponse(own_client.metadata(keyed=False), headers=_CACHE_HEADERS)

    @router.get("/.well-known/oauth-client-keys")
    async def show_keyed_metadata() -> JSONResponse:
        return JSONResponse(own_client.metadata(keyed=True), headers=_CACHE_HEADERS)

    return router


def routes(
    pages: "ConnectPages",
    oauth: UpstreamOAuth,
    authenticate_header: AuthenticateHeader,
    check_in_person: RequireInPerson,
    *,
    sign_in: SignIn | None,
) -> APIRouter:
    """Returns the routes of the pages. `authenticate_header` authenticates an Authorization value, or raises TokenRefused.

    Where people sign in at the gateway, the page signs them in; otherwise it asks for an access token.
    """
    router = APIRouter(prefix="/connect", tags=["oauth"], include_in_schema=False)

    @router.get("/callback")
    async def callback(request: Request) -> HTMLResponse:
        answer = _single_parameters(request)
        try:
            connection = await pages.connections.consume_callback(answer.get("state", ""), request.cookies)
        except UnknownConnection:
            return gone_page()
        consent = connection.consent
        try:
            await oauth.complete_consent(consent, connection.verifier, answer)
        except (UpstreamFault, EgressRefused) as fault:
            detail = fault.detail if isinstance(fault, UpstreamFault) else ""
            log.warning("account_connect_failed", server=consent.server, problem=fault.public, detail=detail)
            return html_page("Not connected", f"<p>{escape(fault.public)}. Repeat the request that led you here to try again.</p>", 400)
        await pages.connections.record_consent(connection)
        log.info("account_connected", server=consent.server, issuer=consent.at.issuer, principal=consent.key.owner)
        page_text = (
            f"<p>Interlock may now use your account for <b>{escape(consent.server)}</b>. Tasks that waited continue; close this page.</p>"
        )
        return html_page("Connected", page_text)

    @router.get("/{connection_id}")
    async def show_page(connection_id: str, request: Request) -> Response:
        """Returns the sign-in for any id, so that the page does not reveal which ids exist."""
        if sign_in is not None:
            return sign_in.begin_page(request, PAGE_NAME, connection_id, SIGN_IN_TEXT)
        return html_page("Connect an account", _SIGN_IN_FORM)

    @router.post("/{connection_id}")
    async def show_consent(connection_id: str, request: Request) -> Response:
        try:
            form = parse_form(await read_body(request.scope, request.receive, FORM_MAX), header(request.scope, b"content-type"))
            await pages.connections.find(connection_id)
            caller = await authenticate_header(f"Bearer {form.get('token', '')}", "/api")
            await check_in_person(caller, MANAGE_CONNECTIONS)
        except (BodyTooLarge, BadHeader, ExchangeRefused, TokenRefused):
            return html_page("Connect an account", f"<p><b>The access token is not valid here.</b></p>{_SIGN_IN_FORM}", 401)
        except (UnknownConnection, CallRefused):
            return gone_page()
        return await pages.show_summary(connection_id, caller.principal)

    return router


@dataclass(frozen=True, slots=True)
class ConnectPages:
    """The page of a connection for the person that it belongs to."""

    connections: AccountConnections
    own_client: OwnClient

    async def complete_sign_in(self, request: Request, person: SignedInPerson, reference: str) -> Response:
        """Goes on after a sign-in that the page of the connection `reference` began."""
        return await self.show_summary(reference, person.principal)

    async def show_summary(self, connection_id: str, person: Principal) -> Response:
        """Returns the summary of a connection for its person, and binds it to their browser."""
        try:
            connection = await self.connections.find(connection_id)
        except UnknownConnection:
            return gone_page()
        if person.owner_key != connection.consent.key.owner:
            return gone_page()
        answered = html_page("Connect an account", _summary_html(connection, self.own_client))
        cookie, secure = await self.connections.bind_browser(connection), self.connections.uses_https
        answered.set_cookie(cookie_name(connection, secure), cookie, int(PAGE_SECONDS), secure=secure, httponly=True, samesite="lax")
        return answered


def gone_page() -> HTMLResponse:
    """The answer to a page that does not exist, or is for another person."""
    return html_page("Nothing to connect", f"<p>{GONE_TEXT}</p>", 404)


def _single_parameters(request: Request) -> dict[str, str]:
    """Returns the parameters of the callback; a parameter that occurs twice counts as absent (RFC 6749 s3.1)."""
    pairs = request.query_params.multi_items()
    return {name: value for name, value in pairs if sum(1 for other, _ in pairs if other == name) == 1}


def _summary_html(connection: PendingConnection, own_client: OwnClient) -> str:
    """Returns the consent summary: the server, the authorization server, the scope and the link to sign in."""
    consent = connection.consent
    scope = " ".join(sorted(consent.scopes))
    href = consent_url(
        consent.at, own_client, consent.client.client_id, consent.authorization_params(connection.state, connection.verifier)
    )
    facts = {
        "Server": consent.server,
        "Address": consent.at.issuer if consent.openid else consent.key.resource,
        "You sign in at": urlsplit(href).netloc,
        "Its issuer name": consent.at.issuer,
        "Interlock's client id there": consent.client.client_id,
        "Interlock will be able to": scope or "whatever that service allows by default",
    }
    return (
        f"<p>Interlock will call this server in your name, and only for you.</p>{definitions_html(facts)}"
        f'<p><a href="{escape(href)}" rel="noreferrer">Continue to {escape(urlsplit(href).netloc)}</a>. '
        "If you did not just ask for this, close the page: nothing has happened yet.</p>"
    )
