"""The console as an ASGI application: static files, sign-in, and pages of a session."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import structlog

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.console.api import ApiClient, with_query
from gateway.ingress.console.attempts.requests import ProtocolClient
from gateway.ingress.console.attempts.streaming import last_until_left, part_events
from gateway.ingress.console.forms import FormRefused, check_csrf, check_own_origin, read_console_form, read_console_query
from gateway.ingress.console.live import LiveStreams, stream_changes
from gateway.ingress.console.page import DONE_TEXTS, Elsewhere, GrowingPage, Page, PageRequest, UnknownPage
from gateway.ingress.console.refusals import describe_failure, describe_in_words
from gateway.ingress.console.rendering import PageRenderer, StaticFiles, page_headers
from gateway.ingress.console.routes import NAVIGATION, READERS_ONLY, PageRoute, find_route
from gateway.ingress.console.sign_in.links import ConsoleLinks
from gateway.ingress.console.sign_in.sessions import BrowserSession, ConsoleSessions, NoSession, ProvenPerson, seconds_left
from gateway.ingress.http.asgi import Header, Receive, Scope, Send, header, headers_by_name
from gateway.ingress.http.error_bodies import PROBLEM_MEDIA_TYPE
from gateway.ingress.http.error_rows.state import SignInNotRenewed
from gateway.ingress.http.event_streams import stream_events
from gateway.storage.database import Batch
from gateway.telemetry.spans import current_trace_id
from policies.callers import Caller
from policies.delegation.chain import Principal
from policies.delegation.kills import Killed
from policies.delegation.permissions import Permissions
from policies.delegation.rulings import Act
from policies.tokens.verifier import TokenRefused

LOOPBACK = ("127.0.0.1", "localhost", "::1")
STREAM_HEADER = b"interlock-stream"  # a script of the page shows the answer while it comes
REFRESH_HEADER = b"interlock-refresh"  # a script of the page asks, and not the person
API_PREFIX = "/console/api/"
LIVE_PATH = "/console/live"
LOCATION_MARKS = "/?&=%:@!$'()*+,;~"  # of a location as they are; what could end the header is quoted
log = structlog.get_logger()
BeginSignIn = Callable[[Scope, Receive, Send, str], Awaitable[None]]
ResolveSession = Callable[[Principal, Permissions, float], Awaitable[Caller]]


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    """What the console uses.

    `resolve` returns the caller of a session with the rights of now. `could_allow` tells what a
    caller could be allowed, for what a page offers; /api rules. `count_request` raises LimitReached.
    `spend` returns whether a one-time text of a tenant is new, which then counts until a moment in seconds since 1970.
    `begin_sign_in` answers with the page where a person signs in and comes back to a path; None where nobody signs in at the gateway.
    """

    sessions: ConsoleSessions
    links: ConsoleLinks
    resolve: ResolveSession
    could_allow: Callable[[Caller, Act], bool]
    count_request: Callable[[Caller], None]
    remember_owner: Callable[[str, str], None]  # of the cookie of a session: tenant|issuer|subject, for fair admission
    spend: Callable[[str, str, float], Awaitable[bool]]
    streams: LiveStreams
    begin_sign_in: BeginSignIn | None
    public_url: str


class ConsoleApp:
    """Serves /console. Each request is one of a session, unless it is for a static file or the sign-in."""

    def __init__(self, parts: ConsoleParts, now: Callable[[], float] = time.time) -> None:
        """The application that serves this one serves /api too."""
        self._parts = parts
        self._now = now
        self._static = StaticFiles()
        self._renderer = PageRenderer(now, self._static, parts.public_url)
        url = urlsplit(parts.public_url)
        self._is_https = url.scheme == "https"
        self._is_served = self._is_https or url.hostname in LOOPBACK
        self._cookie = "__Host-interlock-console" if self._is_https else f"interlock-console-{url.port or 80}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Every failure is a page, or for the script that asks for a stream a problem document (RFC 9457)."""
        path = scope["path"]
        if path.startswith("/console/static/"):
            await self._send_static(scope, send)
            return
        try:
            if not self._is_served:
                raise FormRefused("the console needs https: set server.public_url to an https address, or use it on loopback")
            if path == "/console/sign-in":
                await self._sign_in(scope, receive, send)
            else:
                await self._serve_session(scope, receive, send)
        except (NoSession, TokenRefused, Killed) as ended:
            await self._ask_to_sign_in(scope, send, ended)
        except Exception as error:  # the request handler: the router logs and answers what is not expected
            failure = describe_failure(error)
            if failure is None:
                log.exception("console_failed", path=path)
                raise
            await (_respond_problem(send, *failure) if path == LIVE_PATH else self._send_refusal(send, *failure))

    async def _serve_session(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request of a session. Raises what the table of `__call__` names."""
        session, caller = await self._authenticate(scope, is_activity=REFRESH_HEADER not in headers_by_name(scope))
        self._parts.count_request(caller)
        path, api = scope["path"], ApiClient(scope["app"], caller, scope)
        query = read_console_query(scope)
        if path.startswith(API_PREFIX) and scope["method"] in ("GET", "HEAD"):
            await _pass_on(api, scope, receive, send)
            return
        if path == "/console/sign-out" and scope["method"] == "POST":
            await self._sign_out(scope, receive, send, session)
            return
        is_live = path == LIVE_PATH
        target = query.get("page", "") if is_live else path
        if is_live:
            target, _, raw = target.partition("?")
            query = read_console_query({"query_string": raw.encode("ascii", "replace")})
        found = find_route("GET" if scope["method"] == "HEAD" else scope["method"], target)
        if found is None:
            raise UnknownPage
        request = self._page_request(scope, found, session, caller, path=target, query=query)
        if is_live:
            owner = caller.principal.owner_key
            await stream_changes(self._parts.streams, owner, lambda: self._look(scope, found, request), receive=receive, send=send)
            return
        if scope["method"] == "POST":
            check_own_origin(scope)
            form = await read_console_form(scope, receive, found.form_max)
            check_csrf(session, form)
            request = replace(request, form=form)
        answer = await _handle(found, request)
        if isinstance(answer, GrowingPage):
            await self._grow(scope, found, request, answer, receive=receive, send=send)
        else:
            await self._answer(found, request, answer, send)

    def _page_request(
        self, scope: Scope, found: PageRoute, session: BrowserSession, caller: Caller, *, path: str, query: dict[str, str]
    ) -> PageRequest:
        """Returns the request of a page, without a form."""

        async def spend(text: str) -> bool:
            return await self._parts.spend(caller.principal.tenant, f"console|{session.digest}|{text}", session.ends_by)

        return PageRequest(
            ApiClient(scope["app"], caller, scope),
            caller,
            session,
            path,
            found.names,
            query=query,
            form={},
            may=partial(self._parts.could_allow, caller),
            protocols=ProtocolClient(caller, scope),
            spend=spend,
        )

    async def _grow(
        self, scope: Scope, found: PageRoute, request: PageRequest, growing: GrowingPage, *, receive: Receive, send: Send
    ) -> None:
        """Sends what grows as a stream to a script that asks for one, and otherwise the last page."""
        if header(scope, STREAM_HEADER) is None:
            page = await last_until_left(growing.pages, receive)
            if page is not None:
                await self._answer(found, request, page, send)
            return

        def render(page: Page) -> bytes:
            return self._renderer.render(growing.part, _template_members(found, request, page))

        await stream_events(receive, send, part_events(growing.pages, render, describe_in_words))

    async def _look(self, scope: Scope, found: PageRoute, request: PageRequest) -> Page | None:
        """Returns the page as it is now; None when the session has ended. A look of a script keeps no session alive."""
        try:
            _, caller = await self._authenticate(scope, is_activity=False)
        except (NoSession, TokenRefused, Killed, SignInNotRenewed):
            return None
        page = await found.handler(replace(request, caller=caller, api=ApiClient(scope["app"], caller, scope)))
        return page if isinstance(page, Page) and page.is_live else None

    async def _answer(self, found: PageRoute, request: PageRequest, answer: "Page | Elsewhere", send: Send) -> None:
        if isinstance(answer, Elsewhere):
            location = f"{answer.path}&done={answer.done}" if "?" in answer.path else with_query(answer.path, {"done": answer.done})
            await _respond(send, 303, b"", page_headers([(b"location", quote(location, safe=LOCATION_MARKS).encode())]))
            return
        await self._send_page(send, answer.status, answer.template, _template_members(found, request, answer))

    async def _authenticate(self, scope: Scope, *, is_activity: bool) -> tuple[BrowserSession, Caller]:
        """Returns the session of a request and its caller, with the rights of now. Raises NoSession, TokenRefused and Killed."""
        session = await self._parts.sessions.find(cookie := _cookie_of(scope, self._cookie), is_activity=is_activity)
        person = session.person
        self._parts.remember_owner(cookie, person.principal.owner_key)
        return session, await self._parts.resolve(person.principal, person.scope, person.until)

    async def _sign_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Shows for whom a link is, and opens its session when the person confirms it. Raises LinkSpent and FormRefused.

        Without a link, it begins the sign-in at the gateway.
        """
        if scope["method"] != "POST":
            query = read_console_query(scope)
            if "link" not in query and self._parts.begin_sign_in is not None:
                await self._parts.begin_sign_in(scope, receive, send, _page_path(query.get("to", "")))
                return
            secret = query.get("link", "")
            person = await self._parts.links.find(secret)
            members = {"person": person, "secret": secret, "scope": str(person.scope)}
            await self._send_page(send, 200, "sign_in.html", members)
            return
        check_own_origin(scope)
        form = await read_console_form(scope, receive)
        cookie, person = await self._parts.links.redeem(form.get("link", ""), _cookie_of(scope, self._cookie))
        set_cookie = self._set_cookie(cookie, seconds_left(person, self._now()))
        await _respond(send, 303, b"", page_headers([(b"location", b"/console"), (b"set-cookie", set_cookie)]))

    async def open_session(self, scope: Scope, person: ProvenPerson, also: Callable[[Batch], None]) -> bytes:
        """Opens a session for a person who has just signed in in this browser, and returns the Set-Cookie header. `also`: in the commit."""
        cookie = await self._parts.sessions.open(person, "sign-in", _cookie_of(scope, self._cookie), also)
        return self._set_cookie(cookie, seconds_left(person, self._now()))

    async def _sign_out(self, scope: Scope, receive: Receive, send: Send, session: BrowserSession) -> None:
        check_own_origin(scope)
        form = await read_console_form(scope, receive)
        check_csrf(session, form)
        await self._parts.sessions.close(session)
        gone = [(b"set-cookie", self._set_cookie("", 0)), (b"clear-site-data", b'"cache"')]
        await self._send_page(send, 200, "signed_out.html", {}, gone)

    def _set_cookie(self, value: str, seconds: int) -> bytes:
        secure = "; Secure" if self._is_https else ""
        return f"{self._cookie}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}".encode()

    async def _ask_to_sign_in(self, scope: Scope, send: Send, ended: Exception) -> None:
        """Says how to get in. A link from elsewhere brings no cookie with it, so the page offers to load itself again."""
        if scope["path"].startswith((API_PREFIX, LIVE_PATH)):
            await _respond(send, 401, b"", page_headers())
            return
        came_from_elsewhere = header(scope, b"sec-fetch-site") == "cross-site"
        again = scope["path"] if came_from_elsewhere and find_route("GET", scope["path"]) else ""
        stopped = isinstance(ended, Killed)
        to = _page_path(scope["path"]) if self._parts.begin_sign_in is not None else ""
        members = {"again": again, "stopped": stopped, "sign_in": with_query("/console/sign-in", {"to": to}) if to else ""}
        await self._send_page(send, 403 if stopped else 401, "no_session.html", members)

    async def _send_refusal(self, send: Send, status: int, problem: Any) -> None:
        await self._send_page(send, status, "refused.html", {"problem": problem, "status": status, "trace_id": current_trace_id()})

    async def _send_page(
        self, send: Send, status: int, template: str, members: dict[str, Any], extra: "list[Header] | None" = None
    ) -> None:
        await _respond(send, status, self._renderer.render(template, members), page_headers(extra or ()))

    async def _send_static(self, scope: Scope, send: Send) -> None:
        found = self._static.find(scope["path"].rpartition("/")[2])
        if found is None or scope["method"] not in ("GET", "HEAD"):
            await self._send_refusal(send, 404, {"title": "Not found", "detail": "There is no such file."})
            return
        content, kind = found
        is_current = f"/{self._static.version}/" in scope["path"]
        caching = b"public, max-age=31536000, immutable" if is_current else b"no-cache"
        headers = [each for each in page_headers() if each[0] != b"cache-control"]
        await _respond(send, 200, content, [*headers, (b"cache-control", caching)], kind)


async def _handle(found: PageRoute, request: PageRequest) -> Page | GrowingPage | Elsewhere:
    """Returns what answers a request; a refusal is a page with the navigation. Raises what is not expected."""
    try:
        return await found.handler(request)
    except Exception as error:  # the request handler: what is not expected goes on to ConsoleApp
        if (failure := describe_failure(error)) is None:
            raise
        status, told = failure
        log.debug("console_page_refused", path=request.path, status=status)
        members = {"problem": told, "status": status, "trace_id": current_trace_id()}
        return Page("refused_here.html", str(told.get("title", "Refused")), "", (), members, status=status)


async def _respond(send: Send, status: int, body: bytes, headers: "list[Header]", kind: bytes = b"text/html; charset=utf-8") -> None:
    fixed = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})


async def _respond_problem(send: Send, status: int, problem: Mapping[str, Any]) -> None:
    await _respond(send, status, msgspec.json.encode(problem), page_headers(), PROBLEM_MEDIA_TYPE)


async def _pass_on(api: ApiClient, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what /api answers, which is the JSON twin of a page."""
    names = (b"accept", b"last-event-id")
    sent = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in names}
    path = scope["path"].removeprefix("/console")
    await api.stream(path, scope["query_string"].decode("latin-1"), sent, receive=receive, send=send)


def _template_members(found: PageRoute, request: PageRequest, answer: Page) -> dict[str, Any]:
    """Returns what the template of a page is given."""
    return {
        **answer.members,
        "page": answer,
        "nav": found.nav,
        "navigation": _navigation(request),
        "request": request,
        "me": request.caller.principal,
        "csrf": request.session.csrf,
        "done": DONE_TEXTS.get(request.query.get("done", ""), ""),
        "live": _live_address(answer, request),
    }


def _navigation(request: PageRequest) -> list[tuple[str, list[tuple[str, str]]]]:
    """Returns the sections of the navigation, without links to what the person may not read."""
    hidden = () if request.may(READ_AUDIT) else READERS_ONLY
    return [(section, [link for link in links if link[0] not in hidden]) for section, links in NAVIGATION]


def _live_address(page: Page, request: PageRequest) -> str:
    """Returns the address of the stream that tells of changes of a page, or an empty text."""
    return with_query(LIVE_PATH, {"page": request.here}) if page.is_live else ""


def _page_path(path: str) -> str:
    """Returns the path of a page of the console, to which a person comes back; another path counts as the overview's."""
    return path if find_route("GET", path) is not None else "/console"


def _cookie_of(scope: Scope, name: str) -> str:
    """Returns the value of a cookie. A cookie that was sent twice counts as absent: one of them is not the gateway's."""
    raw = b"; ".join(value for known, value in scope["headers"] if known == b"cookie").decode("latin-1")
    if raw.count(f"{name}=") != 1:
        return ""
    try:
        found = SimpleCookie(raw).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""
