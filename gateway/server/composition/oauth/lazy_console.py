"""Builds the console when the first request for it comes."""

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.ingress.http.asgi import Receive, Scope, Send
from gateway.ingress.oauth.pages import leaving_page
from gateway.ingress.oauth.sign_in.sessions import SignedInPerson
from gateway.server.composition.oauth.console import ConsoleSignIns
from gateway.server.composition.process import Gateway
from policies.callers import Caller
from policies.delegation.permissions import ALL_PERMISSIONS
from policies.ids import now_us
from policies.tokens.replay_guard import ReplayGuard

if TYPE_CHECKING:
    from gateway.ingress.console.app import ConsoleApp
    from gateway.ingress.console.sign_in.links import ConsoleLinks
    from gateway.ingress.console.sign_in.sessions import ConsoleSessions

CONSOLE_PATHS = ("/console", "/console/{path:path}")


class LazyConsole:
    """The console of one process. Its templates and their library are loaded when the first request for it comes."""

    def __init__(self, gateway: Gateway, sign_ins: ConsoleSignIns) -> None:
        self._gateway = gateway
        self._sign_ins = sign_ins
        self._app: ConsoleApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request for a page."""
        await (await self._load())(scope, receive, send)

    async def complete_sign_in(self, request: Request, person: SignedInPerson, reference: str) -> Response:
        """Opens the session of a person who has signed in, and leads to the page `reference` that they came from."""
        from gateway.ingress.console.sign_in.sessions import SESSION_SECONDS, ProvenPerson

        app = await self._load()
        session, store = self._sign_ins.open(person, SESSION_SECONDS)
        proven = ProvenPerson(person.principal, ALL_PERMISSIONS, session.until / 1e6, session.id)
        cookie = await app.open_session(request.scope, proven, store)
        page = leaving_page("Signed in", reference, "the console")
        page.headers["set-cookie"] = cookie.decode()
        return page

    async def _load(self) -> "ConsoleApp":
        if self._app is None:
            await asyncio.to_thread(_import_console)  # other requests are answered meanwhile
            self._app = self._app or self._build()
        return self._app

    async def _begin_sign_in(self, scope: Scope, receive: Receive, send: Send, to: str) -> None:
        await self._sign_ins.begin(Request(scope), to)(scope, receive, send)

    async def create_link(self, caller: Caller) -> tuple[str, float]:
        """Returns the address of a one-time link for the person of a token, and for how many seconds it is good."""
        from gateway.ingress.console.sign_in.links import LINK_SECONDS
        from gateway.ingress.console.sign_in.sessions import proven_person_of

        secret = await self._links(self._sessions()).create(proven_person_of(caller))
        return f"{self._gateway.settings.public_url}/console/sign-in?link={secret}", LINK_SECONDS

    async def list_sessions(self, caller: Caller) -> list[dict[str, Any]]:
        """Returns the sessions of browsers of the person of a token, as /api shows them."""
        return [each.to_document() for each in await self._sessions().list_of(caller.principal)]

    async def end_session(self, caller: Caller, session_id: str) -> bool:
        """Ends a session of a browser of the person of a token; False where they have no such session."""
        return await self._sessions().end(caller.principal, session_id)

    def _sessions(self) -> "ConsoleSessions":
        from gateway.ingress.console.sign_in.sessions import ConsoleSessions

        return ConsoleSessions(self._gateway.database, now_us, self._gateway.audit.record, self._sign_ins)

    def _links(self, sessions: "ConsoleSessions") -> "ConsoleLinks":
        from gateway.ingress.console.sign_in.links import ConsoleLinks

        return ConsoleLinks(self._gateway.database, sessions, now_us, self._gateway.audit.record)

    def _build(self) -> "ConsoleApp":
        from gateway.ingress.console.app import ConsoleApp, ConsoleParts
        from gateway.ingress.console.live import LiveStreams

        gateway, sessions = self._gateway, self._sessions()
        return ConsoleApp(
            ConsoleParts(
                sessions=sessions,
                links=self._links(sessions),
                resolve=gateway.rulings.caller_resolver.resolve_session,
                could_allow=gateway.rulings.authority.could_allow,
                count_request=gateway.limits.count_request,
                remember_owner=gateway.rulings.token_verifier.owners.remember,
                spend=ReplayGuard(gateway.database, now_us).consume,
                streams=LiveStreams(gateway.open_streams),
                begin_sign_in=self._begin_sign_in if gateway.settings.has_sign_in else None,
                public_url=gateway.settings.public_url,
            )
        )


def _import_console() -> None:
    from gateway.ingress.console import app as app
