"""/api/console/links: one-time links with which a person opens the console in a browser."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from gateway.calls.authorizer import RequireInPerson
from gateway.ingress.http.errors import InvalidRequest
from policies.callers import Caller
from policies.delegation.rulings import Act

OPEN_CONSOLE = Act("openConsole", "Key", "console", "", "console")  # people open only their own: no policy applies
Authenticate = Callable[[Request], Awaitable[Caller]]
CreateLink = Callable[[Caller], Awaitable[tuple[str, float]]]  # the address, and for how many seconds it is good


def routes(create_link: CreateLink, authenticate: Authenticate, check_in_person: RequireInPerson) -> APIRouter:
    """Returns the route. An agent gets no link, whomever it acts for."""
    router = APIRouter(prefix="/api/console", tags=["console"])

    @router.post("/links", name="create_console_link", status_code=201)
    async def create(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        """Raises InvalidRequest for a token that is bound to a key."""
        await check_in_person(caller, OPEN_CONSOLE)
        if caller.thumbprint:
            raise InvalidRequest("the token is bound to a key, which the session of a browser can't show; ask with another token")
        address, seconds = await create_link(caller)
        return JSONResponse({"url": address, "seconds": int(seconds)}, 201, {"cache-control": "no-store"})

    return router
