"""/api/deadletters: the notifications that never arrived, for operators."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.admin.demand import demand
from gateway.tasks.log import rfc3339
from gateway.tasks.webhooks.outbox import Outbox
from policies.callers import Caller
from policies.delegation.rulings import Act

RETRY = Act("registerAgent", "Key", "deadletters", "registry:write", "deadletters")
Admitted = Callable[[Request], Awaitable[Caller]]
Allowed = Callable[[Caller, Act], Awaitable[object]]


def routes(outbox: Outbox, admitted: Admitted, allowed: Allowed) -> APIRouter:
    """`allowed` keeps a ruling and raises Refused unless it is a Grant. Reading needs audit:read, sending again registry:write."""
    router = APIRouter(prefix="/api/deadletters", tags=["deadletters"])

    @router.get("", name="list_deadletters")
    async def list_deadletters(
        caller: Annotated[Caller, Depends(admitted)], cursor: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
    ) -> JSONResponse:
        await demand(caller, allowed, READ_AUDIT)
        letters, more = await outbox.dead(caller.principal.tenant, cursor, limit)
        return JSONResponse({"items": [_item(letter) for letter in letters], "next": more})

    @router.post("/{letter_id}/retry", name="retry_deadletter", status_code=204)
    async def retry(caller: Annotated[Caller, Depends(admitted)], letter_id: str) -> Response:
        await demand(caller, allowed, RETRY)
        await outbox.retry(caller.principal.tenant, letter_id)
        return Response(status_code=204)

    return router


def _item(letter: dict[str, Any]) -> dict[str, Any]:
    return {**letter, "created": rfc3339(letter["created"]), "updated": rfc3339(letter["updated"])}
