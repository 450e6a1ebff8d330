"""/api/settings: what is in force and where each value came from, without secrets, for readers of the audit."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from msgspec.structs import replace

from adapters.version import describe_version
from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.admin.demand import require_permission
from policies.callers import Caller
from policies.delegation.rulings import Act

READ_SETTINGS = replace(READ_AUDIT, verb="read-settings")
Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[object]]


def routes(describe: Callable[[], Sequence[dict[str, Any]]], authenticate: Authenticate, authorize: Authorize) -> APIRouter:
    """Returns the route. `describe` returns each setting as it is in force in this process."""
    router = APIRouter(prefix="/api/settings", tags=["settings"])

    @router.get("", name="list_settings")
    async def list_settings(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        await require_permission(caller, authorize, READ_SETTINGS)
        return JSONResponse({"items": list(describe()), "next": None, "version": describe_version()})

    return router
