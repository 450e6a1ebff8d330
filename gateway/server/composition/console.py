"""Builds the console when the first request for it comes: its templates and their library are not loaded before."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from gateway.ingress.http.asgi import Receive, Scope, Send
from gateway.server.composition.process import Gateway
from gateway.telemetry.spans import TraceContext
from policies.callers import Caller
from policies.ids import now_us

if TYPE_CHECKING:
    from gateway.ingress.console.app import ConsoleApp
    from gateway.ingress.console.sign_in.links import ConsoleLinks
    from gateway.ingress.console.sign_in.sessions import ConsoleSessions

CONSOLE_PATHS = ("/console", "/console/{path:path}")


class LazyConsole:
    """The console of one process. `api` returns the application that serves /api."""

    def __init__(self, gateway: Gateway, api: Callable[[], Any]) -> None:
        self._gateway = gateway
        self._api = api
        self._app: ConsoleApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request for a page."""
        if self._app is None:
            await asyncio.to_thread(_import_console)  # other requests are answered meanwhile
            self._app = self._app or self._build()
        await self._app(scope, receive, send)

    async def create_link(self, caller: Caller) -> tuple[str, float]:
        """Returns the address of a one-time link for the person of a token, and for how many seconds it is good."""
        from gateway.ingress.console.sign_in.links import LINK_SECONDS
        from gateway.ingress.console.sign_in.sessions import proven_person_of

        secret = await self._links(self._sessions()).create(proven_person_of(caller))
        return f"{self._gateway.settings.public_url}/console/sign-in?link={secret}", LINK_SECONDS

    def _sessions(self) -> "ConsoleSessions":
        from gateway.ingress.console.sign_in.sessions import ConsoleSessions

        return ConsoleSessions(self._gateway.database, now_us, self._gateway.audit.record)

    def _links(self, sessions: "ConsoleSessions") -> "ConsoleLinks":
        from gateway.ingress.console.sign_in.links import ConsoleLinks

        return ConsoleLinks(self._gateway.database, sessions, now_us, self._gateway.audit.record)

    def _build(self) -> "ConsoleApp":
        from gateway.ingress.console.app import ConsoleApp, ConsoleParts
        from gateway.ingress.console.live import LiveStreams

        gateway, sessions = self._gateway, self._sessions()
        return ConsoleApp(
            ConsoleParts(
                api=self._api(),
                sessions=sessions,
                links=self._links(sessions),
                resolve=gateway.rulings.caller_resolver.resolve_session,
                could_allow=gateway.rulings.authority.could_allow,
                cancel_task=_task_canceler(gateway),
                count_request=gateway.limits.count_request,
                streams=LiveStreams(gateway.open_streams),
                public_url=gateway.settings.public_url,
            )
        )


def _import_console() -> None:
    from gateway.ingress.console import app as app


def _task_canceler(gateway: Gateway) -> Callable[[Caller, str, str], Awaitable[object]]:
    async def cancel(caller: Caller, agent: str, task_id: str) -> object:
        return await gateway.calls.agents.cancel(caller, agent, task_id, TraceContext())

    return cancel
