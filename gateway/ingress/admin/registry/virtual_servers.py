"""/api/virtual-servers: selections of what servers and agents offer, each served as an MCP endpoint at /mcp/virtual/{name}."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from gateway.ingress.admin.bodies import ApiBody, read_model
from gateway.ingress.admin.registry.access import RegistryAccess, act_of_registry_change
from gateway.ingress.admin.registry.preconditions import check_if_match
from gateway.ingress.http.asgi import list_header
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.registration.requests import BadRequest, check_label
from gateway.tasks.log import to_rfc3339
from policies.callers import Caller
from registry.cards.card import Family, Registration
from registry.seeds import virtual_candidate
from registry.store import Registry
from registry.virtual.selection import BadSelection, Selection

Authenticate = Callable[[Request], Awaitable[Caller]]
VIRTUAL = Family.VIRTUAL


class SelectionBody(ApiBody):
    """The fields that may be changed. An omitted field stays as it is."""

    description: str | None = Field(None, max_length=2000)
    tools: list[str] | None = None
    prompts: list[str] | None = None
    resources: list[str] | None = None
    aliases: dict[str, str] | None = Field(None, max_length=1000)
    mode: Literal["all", "search"] | None = None
    overrides: dict[str, dict[str, Any]] | None = Field(None, max_length=1000)
    label: str | None = None

    def apply_to(self, previous: Selection | None) -> Selection:
        """Returns the selection with the given fields replaced. Raises BadRequest."""
        members = self.model_dump(exclude_none=True, exclude={"name", "label"})
        try:
            return Selection.from_document({**(previous.to_document() if previous else {}), **members})
        except BadSelection as error:
            raise BadRequest(error.field, error.problem) from error


class VirtualBody(SelectionBody):
    name: str


def routes(registry_access: RegistryAccess, registry: Registry, authenticate: Authenticate, max_body: int) -> APIRouter:
    """Returns the routes. Operators create virtual servers; callers see those of which they may use anything."""
    router = APIRouter(prefix="/api/virtual-servers", tags=["servers"])

    @router.post("", name="register_virtual_server", status_code=201, openapi_extra=describe_json_body(VirtualBody))
    async def register(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        body = await read_model(request, VirtualBody, max_body)
        registry_change = await registry_access.authorize_change(caller, act_of_registry_change("register", VIRTUAL, body.name))
        made = virtual_candidate(caller.principal.tenant, caller.principal.owner_key, body.name, body.apply_to(None))
        check_label(body.label)
        entry, _ = await registry.add(replace(made, label=body.label or ""), registry_change)
        return JSONResponse(_entry_document(entry), 201, {"location": f"/api/virtual-servers/{entry.name}"})

    @router.get("", name="list_virtual_servers")
    async def list_all(
        caller: Annotated[Caller, Depends(authenticate)], cursor: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
    ) -> JSONResponse:
        entries, following = await registry_access.list_page(caller, VIRTUAL, cursor, limit)
        return JSONResponse({"items": [_entry_document(entry) for entry in entries], "next": following})

    @router.get("/{name}", name="show_virtual_server")
    async def show(caller: Annotated[Caller, Depends(authenticate)], name: str) -> JSONResponse:
        return _entry_response(registry_access.find(caller, VIRTUAL, name))

    @router.patch("/{name}", name="change_virtual_server", openapi_extra=describe_json_body(SelectionBody))
    async def change(
        caller: Annotated[Caller, Depends(authenticate)], name: str, request: Request, *, dry_run: bool = False
    ) -> JSONResponse:
        """`dry_run`: nothing is changed, and the answer names what would be."""
        entry = registry_access.find(caller, VIRTUAL, name)
        body = await read_model(request, SelectionBody, max_body)
        registry_change = await registry_access.authorize_change(
            caller, act_of_registry_change("preview" if dry_run else "change", VIRTUAL, name)
        )
        check_if_match(entry, list_header(request.scope, b"if-match"))
        check_label(body.label)
        label = entry.label if body.label is None else body.label
        changed = replace(entry, selection=body.apply_to(entry.selection), label=label)
        if dry_run:
            return JSONResponse({"name": name, "changes": _list_changes(entry, changed)})
        return _entry_response(entry if changed == entry else await registry.update(changed, registry_change))

    @router.delete("/{name}", name="remove_virtual_server", status_code=204)
    async def remove(caller: Annotated[Caller, Depends(authenticate)], name: str, request: Request) -> Response:
        await registry_access.remove(caller, VIRTUAL, name, None, list_header(request.scope, b"if-match"))
        return Response(status_code=204)

    return router


def _list_changes(entry: Registration, changed: Registration) -> list[str]:
    """Returns the members in which two states of a virtual server differ."""
    before, after = ({"overrides": {}, **_selection_document(each), "label": each.label} for each in (entry, changed))
    return sorted(name for name in after if before[name] != after[name])


def _selection_document(entry: Registration) -> dict[str, Any]:
    return entry.selection.to_document() if entry.selection else {}


def _entry_response(entry: Registration) -> JSONResponse:
    shown = _entry_document(entry)
    return JSONResponse(shown, headers={"etag": f'"{shown["updated"]}"'})


def _entry_document(entry: Registration) -> dict[str, Any]:
    return {"name": entry.name, "path": f"/mcp/virtual/{entry.name}", **_selection_document(entry)} | {
        "created": to_rfc3339(entry.created),
        "updated": to_rfc3339(entry.updated),
    }
