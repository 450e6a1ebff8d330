"""/api/settings: what is in force and where each value came from, without secrets, for readers of the audit.

The settings are of the whole gateway, and its entries are of the tenant `default`. Readers of another tenant see neither names nor
addresses, but numbers and switches, and how many entries there are.
"""

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
from registry.seeds import DEFAULT_TENANT

HIDDEN = "(of the whole gateway)"
READ_SETTINGS = replace(READ_AUDIT, verb="read-settings")
Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[object]]


def routes(describe: Callable[[], Sequence[dict[str, Any]]], authenticate: Authenticate, authorize: Authorize) -> APIRouter:
    """Returns the route. `describe` returns each setting as it is in force in this process."""
    router = APIRouter(prefix="/api/settings", tags=["settings"])

    @router.get("", name="list_settings")
    async def list_settings(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        await require_permission(caller, authorize, READ_SETTINGS)
        shows_names = caller.principal.tenant == DEFAULT_TENANT
        items = [each if shows_names else _without_names(each) for each in describe()]
        return JSONResponse({"items": items, "next": None, "version": describe_version()})

    return router


def _without_names(setting: dict[str, Any]) -> dict[str, Any]:
    value = setting["value"]
    if isinstance(value, list):
        return {**setting, "value": f"({len(value)} entries)"}
    return setting if value is None or isinstance(value, bool | int | float) else {**setting, "value": HIDDEN}
