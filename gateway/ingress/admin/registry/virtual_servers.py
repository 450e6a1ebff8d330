"""/api/virtual-servers: selections of what servers and agents offer, each an MCP endpoint at /mcp/virtual/{name}."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from gateway.ingress.admin.bodies import Body, read_model
from gateway.ingress.admin.registry.access import Desk, registering
from gateway.ingress.admin.registry.changes import check_match
from gateway.ingress.http.asgi import list_header
from gateway.ingress.http.route_descriptions import takes
from gateway.registration.requests import BadRequest
from gateway.tasks.log import rfc3339
from policies.callers import Caller
from registry.cards.card import Family, Registration
from registry.seeds import virtual
from registry.store import Registry
from registry.virtual.selection import BadSelection, Selection

Admitted = Callable[[Request], Awaitable[Caller]]
VIRTUAL = Family.VIRTUAL


class SelectionBody(Body):
    """What may be changed; a member that is left out stays as it is."""

    description: str | None = Field(None, max_length=2000)
    tools: list[str] | None = None
    prompts: list[str] | None = None
    resources: list[str] | None = None
    aliases: dict[str, str] | None = Field(None, max_length=1000)
    mode: Literal["all", "search"] | None = None
    overrides: dict[str, dict[str, Any]] | None = Field(None, max_length=1000)

    def over(self, before: Selection | None) -> Selection:
        """Raises BadRequest."""
        given = self.model_dump(exclude_none=True, exclude={"name"})
        try:
            return Selection.of({**(before.document() if before else {}), **given})
        except BadSelection as error:
            raise BadRequest(error.field, error.problem) from error


class VirtualBody(SelectionBody):
    name: str


def routes(desk: Desk, registry: Registry, admitted: Admitted, max_body: int) -> APIRouter:
    """Operators make them; whoever may use anything of one may see it."""
    router = APIRouter(prefix="/api/virtual-servers", tags=["servers"])

    @router.post("", name="register_virtual_server", status_code=201, openapi_extra=takes(VirtualBody))
    async def register(caller: Annotated[Caller, Depends(admitted)], request: Request) -> JSONResponse:
        body = await read_model(request, VirtualBody, max_body)
        deed = await desk.demand(caller, registering("register", VIRTUAL, body.name))
        made = virtual(caller.principal.tenant, caller.principal.owner, body.name, body.over(None))
        entry, _ = await registry.add(made, deed)
        return JSONResponse(_shown(entry), 201, {"location": f"/api/virtual-servers/{entry.name}"})

    @router.get("", name="list_virtual_servers")
    async def list_all(
        caller: Annotated[Caller, Depends(admitted)], cursor: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
    ) -> JSONResponse:
        entries, following = desk.page(caller, VIRTUAL, cursor, limit)
        return JSONResponse({"items": [_shown(entry) for entry in entries], "next": following})

    @router.get("/{name}", name="show_virtual_server")
    async def show(caller: Annotated[Caller, Depends(admitted)], name: str) -> JSONResponse:
        return _told(desk.find(caller, VIRTUAL, name))

    @router.patch("/{name}", name="change_virtual_server", openapi_extra=takes(SelectionBody))
    async def change(caller: Annotated[Caller, Depends(admitted)], name: str, request: Request) -> JSONResponse:
        entry = desk.find(caller, VIRTUAL, name)
        body = await read_model(request, SelectionBody, max_body)
        deed = await desk.demand(caller, registering("change", VIRTUAL, name))
        check_match(entry, list_header(request.scope, b"if-match"))
        return _told(await registry.update(replace(entry, selection=body.over(entry.selection)), deed))

    @router.delete("/{name}", name="remove_virtual_server", status_code=204)
    async def remove(caller: Annotated[Caller, Depends(admitted)], name: str) -> Response:
        await desk.remove(caller, VIRTUAL, name)
        return Response(status_code=204)

    return router


def _told(entry: Registration) -> JSONResponse:
    shown = _shown(entry)
    return JSONResponse(shown, headers={"etag": f'"{shown["updated"]}"'})


def _shown(entry: Registration) -> dict[str, Any]:
    selection = entry.selection.document() if entry.selection else {}
    return {"name": entry.name, "path": f"/mcp/virtual/{entry.name}", **selection} | {
        "created": rfc3339(entry.created),
        "updated": rfc3339(entry.updated),
    }
