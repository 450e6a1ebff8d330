"""/api/grants: revokes a delegation, for its person and for operators."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from gateway.calls.authorizer import RequireInPerson
from gateway.calls.revocation.grants import Revocation
from policies.callers import Caller
from policies.delegation.rulings import Act

REVOKE_GRANTS = Act("writePolicy", "Key", "grants", "policy:write", "grants", "revoke")
Authenticate = Callable[[Request], Awaitable[Caller]]
CouldAllow = Callable[[Caller, Act], bool]


def routes(revocation: Revocation, authenticate: Authenticate, could_allow: CouldAllow, check_in_person: RequireInPerson) -> APIRouter:
    """Returns the route. `could_allow` is Authority.could_allow.

    A person revokes their own grants, a policy writer any grant of the tenant, an agent none.
    """
    router = APIRouter(prefix="/api/grants", tags=["grants"])

    @router.delete("/{grant_id}", name="revoke_grant", status_code=204)
    async def revoke_grant(caller: Annotated[Caller, Depends(authenticate)], grant_id: str) -> Response:
        await check_in_person(caller, REVOKE_GRANTS)
        await revocation.revoke(caller.principal, grant_id, may_revoke_others=could_allow(caller, REVOKE_GRANTS))
        return Response(status_code=204)

    return router
