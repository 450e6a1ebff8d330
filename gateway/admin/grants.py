"""/api/grants: the end of a delegation, by the person it came from or by an operator."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from gateway.revocation import Revocation, UnknownGrant
from policies.callers import Caller
from policies.grant import Act

WRITE_POLICY = Act("writePolicy", "Key", "grants", "policy:write", "grants")
Admitted = Callable[[Request], Awaitable[Caller]]
May = Callable[[Caller, Act], bool]


def routes(revocation: Revocation, admitted: Admitted, may: May) -> APIRouter:
    """`may` is Authority.may; whoever may write policies may end anybody's grant of the tenant. Agents end none."""
    router = APIRouter(prefix="/api/grants", tags=["grants"])

    @router.delete("/{grant_id}", name="revoke_grant", status_code=204)
    async def revoke_grant(caller: Annotated[Caller, Depends(admitted)], grant_id: str) -> Response:
        if caller.delegation.path:
            raise UnknownGrant
        await revocation.revoke(caller.principal, grant_id, everybodys=may(caller, WRITE_POLICY))
        return Response(status_code=204)

    return router
