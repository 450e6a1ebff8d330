"""Agents and servers: lists, and one page each with what it is, what it may do, how it fares, and what waits for approval."""

from collections.abc import Mapping
from typing import Any

from gateway.ingress.console.api import PagePart, api_path, gather, with_query
from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.page import Elsewhere, Page, PageRequest

AWAITING = ("pending", "quarantined")
AGENT_FILTERS = ("q", "skill", "tag", "cursor")


async def list_agents(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    filters = {name: request.query[name] for name in AGENT_FILTERS if request.query.get(name)}
    document = await request.api.get("/api/agents", **filters)
    members = {"entries": document, "filters": {name: filters.get(name, "") for name in AGENT_FILTERS}, "family": "agents"}
    api = with_query("/api/agents", filters)
    return Page("entries.html", "Agents", api, ("interlock", "agent", "list"), members, is_live=not filters.get("cursor"))


async def list_servers(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    filters = {"cursor": request.query["cursor"]} if request.query.get("cursor") else {}
    document = await request.api.get("/api/servers", **filters)
    members = {"entries": document, "filters": {}, "family": "servers"}
    return Page(
        "entries.html", "Servers", with_query("/api/servers", filters), ("interlock", "server", "list"), members, is_live=not filters
    )


async def show_agent(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    path = api_path("agents", request.name)
    entry = await request.api.get(path)
    tasks, *more = await gather(
        request.api.part("/api/tasks", agent=entry["name"], limit="8"),
        *([request.api.part(f"{path}/history", limit="20")] if "owner" in entry else []),  # a refusal would be recorded
    )
    history = more[0] if more else PagePart()
    members = {"entry": entry, "family": "agents", "history": history, "tasks": tasks, **_may(entry)}
    return Page("agent.html", f"Agent {entry['name']}", path, ("interlock", "agent", "show", entry["name"]), members)


async def show_server(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    path = api_path("servers", request.name)
    entry = await request.api.get(path)
    members = {"entry": entry, "family": "servers", **_may(entry)}
    return Page("server.html", f"Server {entry['name']}", path, ("interlock", "server", "show", entry["name"]), members)


async def act_on_agent(request: PageRequest) -> Elsewhere:
    """Raises ApiRefusal and FormRefused."""
    return await _act(request, "agents")


async def act_on_server(request: PageRequest) -> Elsewhere:
    """Raises ApiRefusal and FormRefused."""
    return await _act(request, "servers")


async def _act(request: PageRequest, family: str) -> Elsewhere:
    """Approves, refreshes or quarantines an entry, as it was when the person saw it. Raises ApiRefusal and FormRefused."""
    name = request.name
    path, seen = api_path(family, name), {"if-match": f'"{request.form.get("seen", "")}"'}
    match request.form.get("act", ""):
        case "approve":
            await request.api.request("POST", f"{path}/approve", headers=seen)
            done = "entry-approved"
        case "refresh":
            await request.api.request("POST", f"{path}/refresh")
            done = "refreshed"
        case "quarantine":
            await request.api.request("PATCH", path, {"status": "quarantined"}, headers=seen)
            done = "quarantined"
        case _:
            raise FormRefused("the form names no act")
    return Elsewhere(f"/console/{family}/{name}", done)


def _may(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the page offers: the whole entry is shown to operators and its owner only."""
    waits = entry["status"] in AWAITING or bool(entry.get("drift")) or bool(entry.get("withheld"))
    return {"is_whole": "owner" in entry, "waits": waits, "is_own": not entry.get("client_id", "x")}
