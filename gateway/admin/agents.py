"""/api/agents: agents are offered, listed, approved and removed; cards come back as they came."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from gateway.admin.bodies import TermsBody, read_model
from gateway.admin.desk import Desk
from gateway.offers import AgentOffer
from gateway.onboarding import Onboarding
from policies.authority import Caller
from registry.card import Family, Registration
from registry.store import UnknownName

Admitted = Callable[[Request], Awaitable[Caller]]
AGENT = Family.AGENT


class AgentBody(TermsBody):
    url: str = Field("", max_length=2048)
    card: dict[str, Any] | None = None
    name: str = ""
    kind: str = "a2a"

    def offer(self) -> AgentOffer:
        return AgentOffer(self.url, self.card, self.name, self.kind, self.terms())


def routes(desk: Desk, onboarding: Onboarding, admitted: Admitted, max_body: int) -> APIRouter:
    """An entry that the caller may not see is answered as one that does not exist."""
    router = APIRouter(prefix="/api/agents", tags=["agents"])

    @router.post("", name="register_agent", status_code=201)
    async def register(caller: Annotated[Caller, Depends(admitted)], request: Request) -> JSONResponse:
        body = await read_model(request, AgentBody, max_body)
        entry, secret = await onboarding.agent(await desk.registrant(caller), body.offer())
        shown = {**_whole(desk, caller, entry), "client_id": entry.client_id, "client_secret": secret}
        return JSONResponse(shown, 201, {"location": f"/api/agents/{entry.name}", "cache-control": "no-store"})

    @router.get("", name="list_agents")
    async def list_agents(
        caller: Annotated[Caller, Depends(admitted)], cursor: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
    ) -> JSONResponse:
        entries, following = desk.page(caller, AGENT, cursor, limit)
        return JSONResponse({"items": [_head(desk, caller, entry) for entry in entries], "next": following})

    @router.get("/{name}", name="show_agent")
    async def show(caller: Annotated[Caller, Depends(admitted)], name: str) -> JSONResponse:
        return JSONResponse(_whole(desk, caller, desk.find(caller, AGENT, name)))

    @router.get("/{name}/card", name="agent_card")
    async def card(caller: Annotated[Caller, Depends(admitted)], name: str) -> Response:
        entry = desk.find(caller, AGENT, name)
        if not entry.card_text:
            raise UnknownName(name)
        return Response(entry.card_text, media_type="application/json")

    @router.post("/{name}/approve", name="approve_agent")
    async def approve(caller: Annotated[Caller, Depends(admitted)], name: str) -> JSONResponse:
        return JSONResponse(_whole(desk, caller, await desk.approve(caller, AGENT, name)))

    @router.post("/{name}/secret", name="renew_agent_secret")
    async def renew_secret(caller: Annotated[Caller, Depends(admitted)], name: str) -> JSONResponse:
        secret = await desk.renew_secret(caller, AGENT, name)
        client_id = desk.find(caller, AGENT, name).client_id
        return JSONResponse({"name": name, "client_id": client_id, "client_secret": secret}, headers={"cache-control": "no-store"})

    @router.delete("/{name}", name="remove_agent", status_code=204)
    async def remove(caller: Annotated[Caller, Depends(admitted)], name: str) -> Response:
        await desk.remove(caller, AGENT, name)
        return Response(status_code=204)

    return router


def _head(desk: Desk, caller: Caller, entry: Registration) -> dict[str, Any]:
    card = entry.card
    skills = (
        [{"id": skill.id, "name": skill.name, "description": skill.description, "tags": list(skill.tags)} for skill in card.skills]
        if card
        else []
    )
    return {**desk.shown(caller, entry), "description": card.description if card else "", "skills": skills}


def _whole(desk: Desk, caller: Caller, entry: Registration) -> dict[str, Any]:
    return {**_head(desk, caller, entry), "card": entry.card.document if entry.card else None}
