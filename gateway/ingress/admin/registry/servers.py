"""/api/servers: MCP servers are offered, listed, approved and removed. A command is never taken from a request."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from adapters.openapi.text import DOCUMENT_MAX
from adapters.openapi.text import MEMBERS_MAX as DOCUMENT_MEMBERS
from gateway.ingress.admin.bodies import Body, ServerTermsBody, read_model, read_optional
from gateway.ingress.admin.registry.access import Desk, registering
from gateway.ingress.admin.registry.changes import Amendments, ServerPatch
from gateway.ingress.http.asgi import list_header
from gateway.ingress.http.route_descriptions import takes
from gateway.registration.onboarding import Onboarding
from gateway.registration.requests import ServerOffer
from policies.callers import Caller
from policies.strict_json import MEMBERS_MAX
from registry.cards.card import INSTRUCTIONS, Family, Registration
from registry.drift.pins import waiting

Names = list[str]
Admitted = Callable[[Request], Awaitable[Caller]]
SERVER = Family.SERVER


class About(NamedTuple):
    """What is known of a server outside of the registry: what a command wrote to its standard error, and who the gateway is to it."""

    said: Callable[[Registration], list[str]]
    forget_registration: Callable[[Registration], Awaitable[None]]


class ServerBody(ServerTermsBody):
    name: str
    url: str = Field("", max_length=2048)
    openapi: str | dict[str, Any] | None = None  # the address of a document, or the document

    def offer(self) -> ServerOffer:
        return ServerOffer(self.name, self.url, self.terms(), self.openapi)


class Choice(Body):
    """Definitions by their names; of resources their URIs, of templates their texts."""

    tools: Names = Field([], max_length=2000)
    prompts: Names = Field([], max_length=2000)
    resources: Names = Field([], max_length=2000)
    templates: Names = Field([], max_length=2000)
    instructions: Names = Field([], max_length=1)

    def chosen(self) -> dict[str, list[str]]:
        return self.model_dump()


def routes(desk: Desk, amendments: Amendments, onboarding: Onboarding, admitted: Admitted, max_body: int, *, about: About) -> APIRouter:
    """An entry that the caller may not see is answered as one that does not exist."""
    router = APIRouter(prefix="/api/servers", tags=["servers"])

    @router.post("", name="register_server", status_code=201, openapi_extra=takes(ServerBody))
    async def register(caller: Annotated[Caller, Depends(admitted)], request: Request) -> JSONResponse:
        bounds = (max(max_body, DOCUMENT_MAX), DOCUMENT_MEMBERS) if desk.operator(caller) else (max_body, MEMBERS_MAX)
        body = await read_model(request, ServerBody, *bounds)
        entry, _ = await onboarding.server(await desk.registrant(caller, SERVER, body.name), body.offer())
        return JSONResponse(_head(desk, caller, entry), 201, {"location": f"/api/servers/{entry.name}"})

    @router.get("", name="list_servers")
    async def list_servers(
        caller: Annotated[Caller, Depends(admitted)], cursor: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
    ) -> JSONResponse:
        entries, following = desk.page(caller, SERVER, cursor, limit)
        well = await amendments.healths(entries)
        items = [{**_head(desk, caller, entry), "healthy": well[entry.name]} for entry in entries]
        return JSONResponse({"items": items, "next": following, **await desk.empty_reason(caller, SERVER, entries)})

    async def told(caller: Caller, entry: Registration) -> JSONResponse:
        names = {"tool_names": desk.tools(caller, entry), "prompt_names": desk.prompts(caller, entry)}
        output = {"stderr": lines} if desk.operator(caller) and (lines := about.said(entry)) else {}
        shown = {**_head(desk, caller, entry), **names, **output, **await amendments.story(caller, entry)}
        return JSONResponse(shown, headers={"etag": f'"{shown["updated"]}"'})

    @router.get("/{name}", name="show_server")
    async def show(caller: Annotated[Caller, Depends(admitted)], name: str) -> JSONResponse:
        return await told(caller, desk.find(caller, SERVER, name))

    @router.patch("/{name}", name="change_server", openapi_extra=takes(ServerPatch))
    async def change(caller: Annotated[Caller, Depends(admitted)], name: str, request: Request) -> JSONResponse:
        entry = desk.find(caller, SERVER, name)
        patch = await read_model(request, ServerPatch, max_body)
        return await told(caller, await amendments.patch(caller, entry, patch, list_header(request.scope, b"if-match")))

    @router.post("/{name}/refresh", name="refresh_server")
    async def refresh(caller: Annotated[Caller, Depends(admitted)], name: str) -> JSONResponse:
        return await told(caller, await amendments.refresh(caller, desk.find(caller, SERVER, name)))

    @router.post("/{name}/approve", name="approve_server", openapi_extra=takes(Choice, required=False))
    async def approve(caller: Annotated[Caller, Depends(admitted)], name: str, request: Request) -> JSONResponse:
        entry = desk.find(caller, SERVER, name)
        body = await read_optional(request, Choice, max_body)
        chosen = body.chosen() if body else None
        return await told(caller, await amendments.approve(caller, entry, list_header(request.scope, b"if-match"), chosen))

    @router.delete("/{name}/registration", name="forget_registration", status_code=204)
    async def forget_registration(caller: Annotated[Caller, Depends(admitted)], name: str) -> Response:
        entry = desk.find(caller, SERVER, name)
        await desk.demand(caller, registering("register-anew", SERVER, name))
        await about.forget_registration(entry)
        return Response(status_code=204)

    @router.delete("/{name}", name="remove_server", status_code=204)
    async def remove(caller: Annotated[Caller, Depends(admitted)], name: str) -> Response:
        await desk.remove(caller, SERVER, name)
        return Response(status_code=204)

    return router


def _head(desk: Desk, caller: Caller, entry: Registration) -> dict[str, Any]:
    facts = entry.facts
    learned = {"era": facts.get("era", ""), "protocol_version": facts.get("protocol_version", ""), "tools": len(desk.tools(caller, entry))}
    learned["prompts"] = len(desk.prompts(caller, entry))
    if desk.reads(caller, entry):
        learned |= {"resources": len(entry.resources), "templates": len(entry.templates)}
    if desk.controls(caller, entry):
        learned["waiting"] = len(list(waiting(entry)))
        learned["instructions"] = facts.get(INSTRUCTIONS, "")
        learned["left_out"] = facts.get("left_out", {"count": 0, "first": []})
    labels = {"sensitivity": entry.sensitivity, "sensitivities": dict(entry.sensitivities)}
    return {**desk.shown(caller, entry), **labels, **learned}
