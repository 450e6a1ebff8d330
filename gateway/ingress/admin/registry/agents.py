"""/api/agents: agents are offered, listed, approved and removed; cards come back as they came."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from gateway.ingress.admin.bodies import AgentTermsBody, read_model
from gateway.ingress.admin.registry.access import Desk
from gateway.ingress.admin.registry.changes import AgentPatch, Amendments
from gateway.ingress.http.asgi import list_header
from gateway.ingress.http.route_descriptions import takes
from gateway.registration.onboarding import Onboarding
from gateway.registration.requests import AgentOffer
from policies.callers import Caller
from registry.cards.card import Family, Registration
from registry.cards.reader import CARD_MAX
from registry.search import Wanted
from registry.store import UnknownName

Admitted = Callable[[Request], Awaitable[Caller]]
AGENT = Family.AGENT
OFFER_MAX = 2 * CARD_MAX  # bytes of a registration, whose card may escape its characters


class AgentBody(AgentTermsBody):
    url: str = Field("", max_length=2048)
    card: dict[str, Any] | None = None
    name: str = ""
    kind: str = "a2a"
    jwks: dict[str, Any] | None = None

    def offer(self) -> AgentOffer:
        return AgentOffer(self.url, self.card, self.name, self.kind, self.terms(), self.jwks)


class Sought(BaseModel):
    """What a list is narrowed to."""

    q: str = Field("", max_length=1000)
    skill: str = Field("", max_length=200)
    tag: str = Field("", max_length=200)
    mode: str = Field("", max_length=200)
    cursor: str = Field("", max_length=100)
    limit: int = Field(50, ge=1, le=200)

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.q, self.skill, self.tag, self.mode)


def routes(desk: Desk, amendments: Amendments, onboarding: Onboarding, admitted: Admitted, max_body: int) -> APIRouter:
    """An entry that the caller may not see is answered as one that does not exist."""
    router = APIRouter(prefix="/api/agents", tags=["agents"])
    _keeping(router, desk, onboarding, admitted, max_body, amendments=amendments)
    _changing(router, desk, amendments, admitted, max_body)
    return router


def _keeping(router: APIRouter, desk: Desk, onboarding: Onboarding, admitted: Admitted, max_body: int, *, amendments: Amendments) -> None:
    """Offers, lists, cards, secrets, farewells."""

    @router.post("", name="register_agent", status_code=201, openapi_extra=takes(AgentBody))
    async def register(caller: Annotated[Caller, Depends(admitted)], request: Request) -> JSONResponse:
        body = await read_model(request, AgentBody, min(max_body, OFFER_MAX))
        entry, secret = await onboarding.agent(await desk.registrant(caller, AGENT, body.name), body.offer())
        shown = {**_whole(desk, caller, entry), "client_id": entry.client_id, "client_secret": secret}
        return JSONResponse(shown, 201, {"location": f"/api/agents/{entry.name}", "cache-control": "no-store"})

    @router.get("", name="list_agents")
    async def list_agents(caller: Annotated[Caller, Depends(admitted)], sought: Annotated[Sought, Query()]) -> JSONResponse:
        if sought.wanted == Wanted():
            entries, following = desk.page(caller, AGENT, sought.cursor, sought.limit)
        else:
            entries, following = await desk.found(caller, sought.wanted, sought.cursor, sought.limit)
        well = await amendments.healths(entries)
        items = [{**_head(desk, caller, entry), "healthy": well[entry.name]} for entry in entries]
        return JSONResponse({"items": items, "next": following, **await desk.empty_reason(caller, AGENT, entries)})

    @router.get("/{name}/card", name="agent_card")
    async def card(caller: Annotated[Caller, Depends(admitted)], name: str) -> Response:
        entry = desk.find(caller, AGENT, name)
        if not entry.card_text:
            raise UnknownName(name)
        return Response(entry.card_text, media_type="application/json")

    @router.post("/{name}/secret", name="renew_agent_secret")
    async def renew_secret(caller: Annotated[Caller, Depends(admitted)], name: str) -> JSONResponse:
        secret = await desk.renew_secret(caller, AGENT, name)
        client_id = desk.find(caller, AGENT, name).client_id
        return JSONResponse({"name": name, "client_id": client_id, "client_secret": secret}, headers={"cache-control": "no-store"})

    @router.delete("/{name}", name="remove_agent", status_code=204)
    async def remove(caller: Annotated[Caller, Depends(admitted)], name: str) -> Response:
        await desk.remove(caller, AGENT, name)
        return Response(status_code=204)


def _changing(router: APIRouter, desk: Desk, amendments: Amendments, admitted: Admitted, max_body: int) -> None:
    """How an agent stands, and what becomes of it."""

    async def told(caller: Caller, entry: Registration) -> JSONResponse:
        shown = {**_whole(desk, caller, entry), **await amendments.story(caller, entry)}
        return JSONResponse(shown, headers={"etag": f'"{shown["updated"]}"'})

    @router.get("/{name}", name="show_agent")
    async def show(caller: Annotated[Caller, Depends(admitted)], name: str) -> JSONResponse:
        return await told(caller, desk.find(caller, AGENT, name))

    @router.patch("/{name}", name="change_agent", openapi_extra=takes(AgentPatch))
    async def change(caller: Annotated[Caller, Depends(admitted)], name: str, request: Request) -> JSONResponse:
        entry = desk.find(caller, AGENT, name)
        patch = await read_model(request, AgentPatch, max_body)
        return await told(caller, await amendments.patch(caller, entry, patch, list_header(request.scope, b"if-match")))

    @router.post("/{name}/refresh", name="refresh_agent")
    async def refresh(caller: Annotated[Caller, Depends(admitted)], name: str) -> JSONResponse:
        return await told(caller, await amendments.refresh(caller, desk.find(caller, AGENT, name)))

    @router.post("/{name}/approve", name="approve_agent")
    async def approve(caller: Annotated[Caller, Depends(admitted)], name: str, request: Request) -> JSONResponse:
        entry = desk.find(caller, AGENT, name)
        return await told(caller, await amendments.approve(caller, entry, list_header(request.scope, b"if-match")))

    @router.get("/{name}/history", name="agent_history")
    async def history(
        caller: Annotated[Caller, Depends(admitted)],
        name: str,
        cursor: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> JSONResponse:
        items = await amendments.history(caller, desk.find(caller, AGENT, name), cursor, limit)
        following = str(items[-1]["seq"]) if len(items) == limit and items[-1]["seq"] > 1 else None
        return JSONResponse({"items": items, "next": following})


def _head(desk: Desk, caller: Caller, entry: Registration) -> dict[str, Any]:
    card = entry.card
    skills = (
        [{"id": skill.id, "name": skill.name, "description": skill.description, "tags": list(skill.tags)} for skill in card.skills]
        if card
        else []
    )
    shown = {**desk.shown(caller, entry), "signature": entry.facts.get("signature", "none")}
    return {**shown, "description": card.description if card else "", "skills": skills}


def _whole(desk: Desk, caller: Caller, entry: Registration) -> dict[str, Any]:
    """With all that is for operators and for who registered it."""
    shown = {**_head(desk, caller, entry), "card": entry.card.document if entry.card else None, "contracts": dict(entry.contracts)}
    if desk.controls(caller, entry):
        facts = entry.facts
        shown |= {"signed_by": facts.get("signed_by", ""), "warnings": facts.get("warnings", []), "source": facts.get("source", "")}
        shown |= {"context": entry.context, "endpoints": [{"url": each.url, "weight": each.weight} for each in entry.endpoints]}
        shown |= {"rank": entry.rank, "trusted_keys": [key.get("kid") for key in entry.trusted_keys]}
    return shown
