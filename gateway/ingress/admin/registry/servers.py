"""/api/servers: registers, lists, changes, approves and removes MCP servers. A request can never name a command to run."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from adapters.openapi.text import DOCUMENT_MAX
from adapters.openapi.text import MEMBERS_MAX as DOCUMENT_MEMBERS
from gateway.ingress.admin.bodies import ApiBody, ServerTermsBody, read_model, read_optional_model
from gateway.ingress.admin.registry.access import RegistryAccess, act_of_registry_change
from gateway.ingress.admin.registry.changes import EntryChanges, ServerPatch
from gateway.ingress.admin.registry.previews import preview_server
from gateway.ingress.http.asgi import list_header
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.registration.effect_suggestions import suggest_effects
from gateway.registration.onboarding import Onboarding
from gateway.registration.requests import ServerRegistrationRequest
from policies.callers import Caller
from policies.strict_json import MEMBERS_MAX
from registry.cards.card import INSTRUCTIONS, Family, Registration
from registry.cards.effects import effect_documents
from registry.cards.prices import price_texts
from registry.drift.pins import awaiting_approval

Names = list[str]
Authenticate = Callable[[Request], Awaitable[Caller]]
SERVER = Family.SERVER


class ServerRuntime(NamedTuple):
    """Facts about a server outside of the registry: the stderr lines of a command, and the gateway's OAuth client registration."""

    stderr_lines: Callable[[Registration], list[str]]
    delete_client_registration: Callable[[Registration], Awaitable[None]]


class ServerBody(ServerTermsBody):
    name: str
    url: str = Field("", max_length=2048)
    openapi: str | dict[str, Any] | None = None  # the URL of an OpenAPI document, or the document

    def registration_request(self) -> ServerRegistrationRequest:
        return ServerRegistrationRequest(self.name, self.url, self.operator_terms(), self.openapi)


class Choice(ApiBody):
    """The definitions to approve, by name: resources by URI, templates by URI template."""

    tools: Names = Field([], max_length=2000)
    prompts: Names = Field([], max_length=2000)
    resources: Names = Field([], max_length=2000)
    templates: Names = Field([], max_length=2000)
    instructions: Names = Field([], max_length=1)

    def to_chosen_names(self) -> dict[str, list[str]]:
        return self.model_dump()


def routes(
    registry_access: RegistryAccess,
    entry_changes: EntryChanges,
    onboarding: Onboarding,
    authenticate: Authenticate,
    max_body: int,
    *,
    runtime: ServerRuntime,
) -> APIRouter:
    """Builds the routes. An entry that the caller may not see is reported as unknown."""
    router = APIRouter(prefix="/api/servers", tags=["servers"])
    respond_with_entry = partial(_entry_response, registry_access, entry_changes, runtime)
    _add_registration_routes(router, registry_access, entry_changes, onboarding, authenticate, max_body=max_body)
    _add_change_routes(router, registry_access, entry_changes, authenticate, respond_with_entry, max_body=max_body)

    @router.delete("/{name}/registration", name="forget_registration", status_code=204)
    async def delete_client_registration(caller: Annotated[Caller, Depends(authenticate)], name: str) -> Response:
        entry = registry_access.find(caller, SERVER, name)
        await registry_access.authorize_change(caller, act_of_registry_change("register-anew", SERVER, name))
        await runtime.delete_client_registration(entry)
        return Response(status_code=204)

    return router


async def _entry_response(
    registry_access: RegistryAccess, entry_changes: EntryChanges, runtime: ServerRuntime, caller: Caller, entry: Registration
) -> JSONResponse:
    names = {
        "tool_names": await registry_access.visible_tools(caller, entry),
        "prompt_names": await registry_access.visible_prompts(caller, entry),
    }
    output = {"stderr": lines} if registry_access.is_operator(caller) and (lines := runtime.stderr_lines(entry)) else {}
    summary, state = await _summary_document(registry_access, caller, entry), await entry_changes.state_document(caller, entry)
    shown = {**summary, **names, **output, **state}
    return JSONResponse(shown, headers={"etag": f'"{shown["updated"]}"'})


def _add_registration_routes(
    router: APIRouter,
    registry_access: RegistryAccess,
    entry_changes: EntryChanges,
    onboarding: Onboarding,
    authenticate: Authenticate,
    *,
    max_body: int,
) -> None:
    @router.post("", name="register_server", status_code=201, openapi_extra=describe_json_body(ServerBody))
    async def register(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        bounds = (max(max_body, DOCUMENT_MAX), DOCUMENT_MEMBERS) if registry_access.is_operator(caller) else (max_body, MEMBERS_MAX)
        body = await read_model(request, ServerBody, *bounds)
        entry, _ = await onboarding.register_server(
            await registry_access.authorize_registration(caller, SERVER, body.name), body.registration_request()
        )
        return JSONResponse(await _summary_document(registry_access, caller, entry), 201, {"location": f"/api/servers/{entry.name}"})

    @router.post("/preview", name="preview_server", openapi_extra=describe_json_body(ServerBody))
    async def preview(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        bounds = (max(max_body, DOCUMENT_MAX), DOCUMENT_MEMBERS) if registry_access.is_operator(caller) else (max_body, MEMBERS_MAX)
        body = await read_model(request, ServerBody, *bounds)
        registrant = await registry_access.authorize_registration(caller, SERVER, body.name, "preview")
        return JSONResponse(await preview_server(onboarding, registrant, body.registration_request()))

    @router.get("", name="list_servers")
    async def list_servers(
        caller: Annotated[Caller, Depends(authenticate)],
        cursor: str = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        *,
        failing: bool = False,
    ) -> JSONResponse:
        """`failing`: only those that can't be called now, or failed their last probe."""
        matches = await entry_changes.list_filter(caller, failing=failing)
        entries, following = await registry_access.list_page(caller, SERVER, cursor, limit, matches)
        healthy = await entry_changes.healthy_by_name(entries)
        items = [{**await _summary_document(registry_access, caller, entry), "healthy": healthy[entry.name]} for entry in entries]
        empty = {} if failing else await registry_access.empty_reason(caller, SERVER, entries)
        return JSONResponse({"items": items, "next": following, **empty})

    @router.delete("/{name}", name="remove_server", status_code=204)
    async def remove(caller: Annotated[Caller, Depends(authenticate)], name: str, request: Request) -> Response:
        await registry_access.remove(caller, SERVER, name, None, list_header(request.scope, b"if-match"))
        return Response(status_code=204)


def _add_change_routes(
    router: APIRouter,
    registry_access: RegistryAccess,
    entry_changes: EntryChanges,
    authenticate: Authenticate,
    respond_with_entry: Callable[[Caller, Registration], Awaitable[JSONResponse]],
    *,
    max_body: int,
) -> None:
    @router.get("/{name}", name="show_server")
    async def show(caller: Annotated[Caller, Depends(authenticate)], name: str) -> JSONResponse:
        return await respond_with_entry(caller, registry_access.find(caller, SERVER, name))

    @router.get("/{name}/effects", name="list_effects")
    async def list_effects(caller: Annotated[Caller, Depends(authenticate)], name: str) -> JSONResponse:
        entry = registry_access.find(caller, SERVER, name)
        await registry_access.authorize_owner_change(caller, entry, "read-effects-of")
        suggested = {tool: each for tool, each in suggest_effects(entry.tools).items() if entry.effect_of(tool) is None}
        return JSONResponse({"declared": effect_documents(entry.effects), "suggested": suggested})

    @router.get("/{name}/history", name="server_history")
    async def history(
        caller: Annotated[Caller, Depends(authenticate)],
        name: str,
        cursor: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> JSONResponse:
        return JSONResponse(await entry_changes.history(caller, registry_access.find(caller, SERVER, name), cursor, limit))

    @router.get("/{name}/history/{seq}", name="server_version")
    async def version(caller: Annotated[Caller, Depends(authenticate)], name: str, seq: Annotated[int, Path(ge=1)]) -> JSONResponse:
        return JSONResponse(await entry_changes.version(caller, registry_access.find(caller, SERVER, name), seq))

    @router.patch("/{name}", name="change_server", openapi_extra=describe_json_body(ServerPatch))
    async def change(
        caller: Annotated[Caller, Depends(authenticate)], name: str, request: Request, *, dry_run: bool = False
    ) -> JSONResponse:
        """`dry_run`: nothing is changed, and the answer names what would be."""
        entry, if_match = registry_access.find(caller, SERVER, name), list_header(request.scope, b"if-match")
        patch = await read_model(request, ServerPatch, max_body)
        if dry_run:
            return JSONResponse({"name": name, "changes": await entry_changes.find_changes(caller, entry, patch, if_match)})
        return await respond_with_entry(caller, await entry_changes.patch(caller, entry, patch, if_match))

    @router.post("/{name}/refresh", name="refresh_server")
    async def refresh(caller: Annotated[Caller, Depends(authenticate)], name: str) -> JSONResponse:
        return await respond_with_entry(caller, await entry_changes.refresh(caller, registry_access.find(caller, SERVER, name)))

    @router.post("/{name}/approve", name="approve_server", openapi_extra=describe_json_body(Choice, required=False))
    async def approve(caller: Annotated[Caller, Depends(authenticate)], name: str, request: Request) -> JSONResponse:
        entry = registry_access.find(caller, SERVER, name)
        body = await read_optional_model(request, Choice, max_body)
        chosen = body.to_chosen_names() if body else None
        return await respond_with_entry(caller, await entry_changes.approve(caller, entry, list_header(request.scope, b"if-match"), chosen))


async def _summary_document(registry_access: RegistryAccess, caller: Caller, entry: Registration) -> dict[str, Any]:
    facts = entry.facts
    learned = {
        "era": facts.get("era", ""),
        "protocol_version": facts.get("protocol_version", ""),
        "tools": len(await registry_access.visible_tools(caller, entry)),
    }
    learned["prompts"] = len(await registry_access.visible_prompts(caller, entry))
    if registry_access.can_read_resources(caller, entry):
        learned |= {"resources": len(entry.resources), "templates": len(entry.templates)}
    if registry_access.is_operator_or_owner(caller, entry):
        learned["waiting"] = len(list(awaiting_approval(entry)))
        learned["instructions"] = facts.get(INSTRUCTIONS, "")
        learned["left_out"] = facts.get("left_out", {"count": 0, "first": []})
    labels = {"sensitivity": entry.sensitivity, "sensitivities": dict(entry.sensitivities), "model_free": list(entry.model_free)}
    labels["effects"] = effect_documents(entry.effects)
    labels["prices"] = price_texts(entry.prices)
    return {**registry_access.summary_document(caller, entry), **labels, **learned}
