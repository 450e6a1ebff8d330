"""/api/whoami and /api/sessions: the caller, and the sessions of a person, which only that person lists and ends."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from gateway.calls.authorizer import RequireInPerson
from gateway.ingress.http.error_rows.state import UnknownSignIn
from gateway.ingress.oauth.sign_in.sessions import Session, SignInSessions
from gateway.tasks.log import to_rfc3339
from policies.callers import Caller
from policies.delegation.rulings import Act

Authenticate = Callable[[Request], Awaitable[Caller]]
MANAGE_SESSIONS = Act("manageSessions", "Key", "sessions", "", "sessions")  # people manage only their own: no policy applies


def caller_routes(authenticate: Authenticate) -> APIRouter:
    """Returns the route that shows callers who they are to the gateway."""
    router = APIRouter(prefix="/api/whoami", tags=["account"])

    @router.get("", name="whoami")
    async def show_caller(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        return JSONResponse(_caller_document(caller))

    return router


def session_routes(sessions: SignInSessions, authenticate: Authenticate, check_in_person: RequireInPerson) -> APIRouter:
    """Returns the routes. A person lists and ends their own sessions; an agent none."""
    router = APIRouter(prefix="/api/sessions", tags=["account"])

    @router.get("", name="list_sessions")
    async def list_sessions(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        await check_in_person(caller, MANAGE_SESSIONS)
        found = await sessions.list_of(caller.principal.tenant, caller.principal.owner_key)
        return JSONResponse({"items": [_session_document(each, caller) for each in found], "next": None})

    @router.delete("/{session_id}", name="end_session")
    async def end_session(caller: Annotated[Caller, Depends(authenticate)], session_id: str) -> JSONResponse:
        await check_in_person(caller, MANAGE_SESSIONS)
        found = await sessions.find(caller.principal.tenant, session_id)
        if found is None or found.person.principal.owner_key != caller.principal.owner_key:
            raise UnknownSignIn
        await sessions.end(found, "ended-by-person")
        return JSONResponse({"id": session_id, "ended": True})

    return router


def _caller_document(caller: Caller) -> dict[str, Any]:
    """The caller. `agents` is the chain of agents that act for the person; `scope` is what the token and the chain leave."""
    principal, delegation = caller.principal, caller.delegation
    return {
        "tenant": principal.tenant,
        "issuer": principal.issuer,
        "subject": principal.subject,
        "roles": list(principal.roles),
        "scope": sorted(delegation.effective_permissions().patterns),
        "agents": [hop.agent for hop in delegation.path],
        "client_id": caller.client_id,
        "session_id": caller.session_id or None,
        "expires": to_rfc3339(int(caller.expires * 1e6)),
    }


def _session_document(session: Session, caller: Caller) -> dict[str, Any]:
    """A session without its secrets."""
    return {
        "id": session.id,
        "client_id": session.client_id,
        "client": session.client_name,
        "resource": session.resource,
        "scope": session.scope.split(" "),
        "provider": session.person.provider,
        "since": to_rfc3339(session.created),
        "renewed": to_rfc3339(session.renewed),
        "until": to_rfc3339(session.until),
        "current": session.id == caller.session_id,
    }
