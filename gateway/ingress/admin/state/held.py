"""/api/state-held: values that miss the schema of their key, which people accept or drop."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from gateway.ingress.admin.demand import require_permission
from gateway.ingress.admin.state.preconditions import etag_of
from gateway.state.board.documents import held_document, value_document
from gateway.state.board.held_values.decisions import DECIDE_HELD, HeldValues
from gateway.storage.paging import format_place, parse_place
from policies.callers import Caller

Authenticate = Callable[[Request], Awaitable[Caller]]


class HeldValueVerdict(BaseModel):
    """What a person decides about a held value."""

    model_config = ConfigDict(extra="forbid")

    decision: Literal["accept", "drop"]


def routes(load: Callable[[], Awaitable[HeldValues]], authenticate: Authenticate) -> APIRouter:
    """Returns the routes."""
    router = APIRouter(prefix="/api/state-held", tags=["state"])

    @router.get("", name="list_held_state")
    async def list_all(
        caller: Annotated[Caller, Depends(authenticate)], cursor: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
    ) -> JSONResponse:
        found, place = await (await load()).list_visible(caller, parse_place(cursor) if cursor else None, limit)
        return JSONResponse({"items": [held_document(held) for held in found], "next": None if place is None else format_place(*place)})

    @router.post("/{held_id}/decision", name="decide_held_state")
    async def decide(caller: Annotated[Caller, Depends(authenticate)], held_id: str, verdict: HeldValueVerdict) -> JSONResponse:
        held = await load()
        accepts = verdict.decision == "accept"
        stored = await require_permission(caller, lambda person, _: held.decide(person, held_id, accepts), DECIDE_HELD)
        if stored is None:
            return JSONResponse({"id": held_id, "state": "dropped"})
        document = {"id": held_id, "state": "accepted", "value": value_document(stored)}
        return JSONResponse(document, 200, {"ETag": etag_of(stored.version)})

    return router
