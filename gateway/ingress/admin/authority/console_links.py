"""/api/console: one-time links with which a person opens the console in a browser, and the sessions of these browsers."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from gateway.calls.authorizer import RequireInPerson
from gateway.ingress.http.error_rows.state import UnknownSignIn
from gateway.ingress.http.errors import InvalidRequest
from policies.callers import Caller
from policies.delegation.rulings import Act

OPEN_CONSOLE = Act("openConsole", "Key", "console", "", "console")  # people open only their own: no policy applies
Authenticate = Callable[[Request], Awaitable[Caller]]
SEE_SESSIONS = Act("manageSessions", "Key", "console-sessions", "", "console-sessions")  # likewise


class Console(Protocol):
    """gateway/server/composition/oauth/lazy_console.py."""

    async def create_link(self, caller: Caller) -> tuple[str, float]:
        """Returns the address, and for how many seconds it is good."""

    async def list_sessions(self, caller: Caller) -> list[dict[str, Any]]: ...

    async def end_session(self, caller: Caller, session_id: str) -> bool: ...


def routes(console: Console, authenticate: Authenticate, check_in_person: RequireInPerson) -> APIRouter:
    """Returns the routes. An agent gets no link and sees no session, whomever it acts for."""
    router = APIRouter(prefix="/api/console", tags=["console"])

    @router.post("/links", name="create_console_link", status_code=201)
    async def create(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        """Raises InvalidRequest for a token that is bound to a key."""
        await check_in_person(caller, OPEN_CONSOLE)
        if caller.thumbprint:
            raise InvalidRequest("the token is bound to a key, which the session of a browser can't show; ask with another token")
        address, seconds = await console.create_link(caller)
        return JSONResponse({"url": address, "seconds": int(seconds)}, 201, {"cache-control": "no-store"})

    @router.get("/sessions", name="list_console_sessions")
    async def list_sessions(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        await check_in_person(caller, SEE_SESSIONS)
        return JSONResponse({"items": await console.list_sessions(caller), "next": None})

    @router.delete("/sessions/{session_id}", name="end_console_session")
    async def end_session(caller: Annotated[Caller, Depends(authenticate)], session_id: str) -> JSONResponse:
        """Signs a browser of the caller out. Raises UnknownSignIn."""
        await check_in_person(caller, SEE_SESSIONS)
        if not await console.end_session(caller, session_id):
            raise UnknownSignIn
        return JSONResponse({"id": session_id, "ended": True})

    return router
