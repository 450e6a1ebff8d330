"""/api/agents: registers, lists, changes, approves and removes agents. Cards are returned byte for byte as they were received."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from gateway.ingress.admin.bodies import AgentTermsBody, read_model
from gateway.ingress.admin.registry.access import RegistryAccess
from gateway.ingress.admin.registry.changes import AgentPatch, EntryChanges
from gateway.ingress.admin.registry.previews import preview_agent
from gateway.ingress.http.asgi import list_header
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.registration.onboarding import Onboarding
from gateway.registration.requests import AgentRegistrationRequest, BadRequest
from policies.callers import Caller
from registry.cards.card import Family, Registration
from registry.cards.effects import effect_documents
from registry.cards.prices import format_price
from registry.cards.reader import CARD_MAX
from registry.search.agents import SearchQuery
from registry.store import UnknownName

Authenticate = Callable[[Request], Awaitable[Caller]]
AGENT = Family.AGENT
REGISTRATION_MAX = 2 * CARD_MAX  # bytes of a registration; JSON escapes may make its card longer


class AgentBody(AgentTermsBody):
    url: str = Field("", max_length=2048)
    card: dict[str, Any] | None = None
    name: str = ""
    kind: str = "a2a"
    jwks: dict[str, Any] | None = None

    def registration_request(self) -> AgentRegistrationRequest:
        return AgentRegistrationRequest(self.url, self.card, self.name, self.kind, self.operator_terms(), self.jwks)


class AgentListQuery(BaseModel):
    """The filters and the page of a list of agents."""

    q: str = Field("", max_length=1000)
    skill: str = Field("", max_length=200)
    tag: str = Field("", max_length=200)
    mode: str = Field("", max_length=200)
    cursor: str = Field("", max_length=100)
    limit: int = Field(50, ge=1, le=200)
    failing: bool = False  # only those that can't be called now, or failed their last probe; not with a search

    @property
    def search_query(self) -> SearchQuery:
        return SearchQuery(self.q, self.skill, self.tag, self.mode)


def routes(
    registry_access: RegistryAccess, entry_changes: EntryChanges, onboarding: Onboarding, authenticate: Authenticate, max_body: int
) -> APIRouter:
    """Returns the routes. An entry that the caller may not see is answered like one that does not exist."""
    router = APIRouter(prefix="/api/agents", tags=["agents"])
    _add_registration_routes(router, registry_access, onboarding, authenticate, max_body, entry_changes=entry_changes)
    _add_change_routes(router, registry_access, entry_changes, authenticate, max_body)
    return router


def _add_registration_routes(
    router: APIRouter,
    registry_access: RegistryAccess,
    onboarding: Onboarding,
    authenticate: Authenticate,
    max_body: int,
    *,
    entry_changes: EntryChanges,
) -> None:
    """Adds the routes that register, list and remove agents, and those of cards and client secrets."""

    @router.post("", name="register_agent", status_code=201, openapi_extra=describe_json_body(AgentBody))
    async def register(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        body = await read_model(request, AgentBody, min(max_body, REGISTRATION_MAX))
        registrant = await registry_access.authorize_registration(caller, AGENT, body.name)
        entry, secret = await onboarding.register_agent(registrant, body.registration_request())
        shown = {**_full_document(registry_access, caller, entry), "client_id": entry.client_id, "client_secret": secret}
        return JSONResponse(shown, 201, {"location": f"/api/agents/{entry.name}", "cache-control": "no-store"})

    @router.post("/preview", name="preview_agent", openapi_extra=describe_json_body(AgentBody))
    async def preview(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        body = await read_model(request, AgentBody, min(max_body, REGISTRATION_MAX))
        registrant = await registry_access.authorize_registration(caller, AGENT, body.name, "preview")
        return JSONResponse(await preview_agent(onboarding, registrant, body.registration_request()))

    @router.get("", name="list_agents")
    async def list_agents(caller: Annotated[Caller, Depends(authenticate)], query: Annotated[AgentListQuery, Query()]) -> JSONResponse:
        if query.failing and query.search_query != SearchQuery():
            raise BadRequest("failing", "can't be combined with a search")
        if query.search_query == SearchQuery():
            matches = await entry_changes.list_filter(caller, failing=query.failing)
            entries, following = await registry_access.list_page(caller, AGENT, query.cursor, query.limit, matches)
        else:
            entries, following = await registry_access.search_page(caller, query.search_query, query.cursor, query.limit)
        healthy = await entry_changes.healthy_by_name(entries)
        items = [{**_summary_document(registry_access, caller, entry), "healthy": healthy[entry.name]} for entry in entries]
        empty = {} if query.failing else await registry_access.empty_reason(caller, AGENT, entries)
        return JSONResponse({"items": items, "next": following, **empty})

    @router.get("/{name}/card", name="agent_card")
    async def card(caller: Annotated[Caller, Depends(authenticate)], name: str) -> Response:
        entry = registry_access.find(caller, AGENT, name)
        if not entry.card_text:
            raise UnknownName(name)
        return Response(entry.card_text, media_type="application/json")

    @router.post("/{name}/secret", name="renew_agent_secret")
    async def renew_secret(caller: Annotated[Caller, Depends(authenticate)], name: str) -> JSONResponse:
        secret = await registry_access.renew_secret(caller, AGENT, name)
        client_id = registry_access.find(caller, AGENT, name).client_id
        return JSONResponse({"name": name, "client_id": client_id, "client_secret": secret}, headers={"cache-control": "no-store"})

    @router.delete("/{name}", name="remove_agent", status_code=204)
    async def remove(caller: Annotated[Caller, Depends(authenticate)], name: str, request: Request) -> Response:
        await registry_access.remove(caller, AGENT, name, None, list_header(request.scope, b"if-match"))
        return Response(status_code=204)


def _add_change_routes(
    router: APIRouter, registry_access: RegistryAccess, entry_changes: EntryChanges, authenticate: Authenticate, max_body: int
) -> None:
    """Adds the routes that show, change, refresh and approve an agent, and that of its history."""

    async def respond_with_entry(caller: Caller, entry: Registration) -> JSONResponse:
        shown = {**_full_document(registry_access, caller, entry), **await entry_changes.state_document(caller, entry)}
        return JSONResponse(shown, headers={"etag": f'"{shown["updated"]}"'})

    @router.get("/{name}", name="show_agent")
    async def show(caller: Annotated[Caller, Depends(authenticate)], name: str) -> JSONResponse:
        return await respond_with_entry(caller, registry_access.find(caller, AGENT, name))

    @router.patch("/{name}", name="change_agent", openapi_extra=describe_json_body(AgentPatch))
    async def change(
        caller: Annotated[Caller, Depends(authenticate)], name: str, request: Request, *, dry_run: bool = False
    ) -> JSONResponse:
        """`dry_run`: nothing is changed, and the answer names what would be."""
        entry, if_match = registry_access.find(caller, AGENT, name), list_header(request.scope, b"if-match")
        patch = await read_model(request, AgentPatch, max_body)
        if dry_run:
            return JSONResponse({"name": name, "changes": await entry_changes.find_changes(caller, entry, patch, if_match)})
        return await respond_with_entry(caller, await entry_changes.patch(caller, entry, patch, if_match))

    @router.post("/{name}/refresh", name="refresh_agent")
    async def refresh(caller: Annotated[Caller, Depends(authenticate)], name: str) -> JSONResponse:
        return await respond_with_entry(caller, await entry_changes.refresh(caller, registry_access.find(caller, AGENT, name)))

    @router.post("/{name}/approve", name="approve_agent")
    async def approve(caller: Annotated[Caller, Depends(authenticate)], name: str, request: Request) -> JSONResponse:
        entry = registry_access.find(caller, AGENT, name)
        return await respond_with_entry(caller, await entry_changes.approve(caller, entry, list_header(request.scope, b"if-match")))

    @router.get("/{name}/history", name="agent_history")
    async def history(
        caller: Annotated[Caller, Depends(authenticate)],
        name: str,
        cursor: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> JSONResponse:
        return JSONResponse(await entry_changes.history(caller, registry_access.find(caller, AGENT, name), cursor, limit))

    @router.get("/{name}/history/{seq}", name="agent_version")
    async def version(caller: Annotated[Caller, Depends(authenticate)], name: str, seq: Annotated[int, Path(ge=1)]) -> JSONResponse:
        return JSONResponse(await entry_changes.version(caller, registry_access.find(caller, AGENT, name), seq))


def _summary_document(registry_access: RegistryAccess, caller: Caller, entry: Registration) -> dict[str, Any]:
    card = entry.card
    skills = (
        [{"id": skill.id, "name": skill.name, "description": skill.description, "tags": list(skill.tags)} for skill in card.skills]
        if card
        else []
    )
    shown = {**registry_access.summary_document(caller, entry), "signature": entry.facts.get("signature", "none")}
    return {**shown, "description": card.description if card else "", "skills": skills}


def _full_document(registry_access: RegistryAccess, caller: Caller, entry: Registration) -> dict[str, Any]:
    """Returns all members of an agent, with those that only operators and the owner may see where the caller is one."""
    shown = {
        **_summary_document(registry_access, caller, entry),
        "card": entry.card.document if entry.card else None,
        "contracts": dict(entry.contracts),
        "effects": effect_documents(entry.effects),
        "price": None if (price := entry.price_of("")) is None else format_price(price),
    }
    if registry_access.is_operator_or_owner(caller, entry):
        facts = entry.facts
        shown |= {"signed_by": facts.get("signed_by", ""), "warnings": facts.get("warnings", []), "source": facts.get("source", "")}
        shown |= {"context": entry.context, "endpoints": [{"url": each.url, "weight": each.weight} for each in entry.endpoints]}
        shown |= {"memory": entry.memory, "rank": entry.rank, "trusted_keys": [key.get("kid") for key in entry.trusted_keys]}
    return shown
