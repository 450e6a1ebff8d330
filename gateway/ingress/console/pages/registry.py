"""Agents and servers: lists, and one page each with what it is, what it may do, how it fares, and what waits for approval."""

from collections.abc import Mapping
from typing import Any

from gateway.ingress.console.api import PagePart, api_path, gather, with_query
from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.page import Elsewhere, Page, PageRequest
from gateway.ingress.console.pages.attempts import list_tools
from gateway.ingress.console.pages.registration import permissions_in
from policies.authority import WRITE_REGISTRY

CHOICE = "choose."  # before the numbers of the fields that choose definitions
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
    tasks, history = await gather(request.api.part("/api/tasks", agent=entry["name"], limit="8"), _history(request, path, entry))
    members = {"entry": entry, "family": "agents", "history": history, "tasks": tasks, **_may(request, entry)}
    return Page("agent.html", f"Agent {entry['name']}", path, ("interlock", "agent", "show", entry["name"]), members)


async def show_server(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    path = api_path("servers", request.name)
    entry = await request.api.get(path)
    history, tools = await gather(_history(request, path, entry), _tools(request, entry))
    members = {"entry": entry, "family": "servers", "history": history, "tools": tools, **_may(request, entry)}
    return Page("server.html", f"Server {entry['name']}", path, ("interlock", "server", "show", entry["name"]), members)


async def show_agent_version(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    return await _version(request, "agents")


async def show_server_version(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    return await _version(request, "servers")


async def act_on_agent(request: PageRequest) -> Page | Elsewhere:
    """Raises ApiRefusal and FormRefused."""
    if request.form.get("act") == "secret":
        made = await request.api.request("POST", f"{api_path('agents', request.name)}/secret")
        command = ("interlock", "agent", "secret", made["name"])
        return Page("secret.html", f"A new secret of {made['name']}", f"/api/agents/{made['name']}", command, {"made": made})
    return await _act(request, "agents")


async def act_on_server(request: PageRequest) -> Elsewhere:
    """Raises ApiRefusal and FormRefused."""
    return await _act(request, "servers")


async def _act(request: PageRequest, family: str) -> Elsewhere:
    """Changes an entry as it was when the person saw it. Raises ApiRefusal and FormRefused."""
    name = request.name
    path, seen = api_path(family, name), {"if-match": f'"{request.form.get("seen", "")}"'}
    match request.form.get("act", ""):
        case "approve":
            await request.api.request("POST", f"{path}/approve", _chosen_definitions(request.form), headers=seen)
            done = "entry-approved"
        case "refresh":
            await request.api.request("POST", f"{path}/refresh")
            done = "refreshed"
        case "quarantine":
            await request.api.request("PATCH", path, {"status": "quarantined"}, headers=seen)
            done = "quarantined"
        case "suspend":
            await request.api.request("PATCH", path, {"status": "down"}, headers=seen)
            done = "suspended"
        case "resume":
            await request.api.request("PATCH", path, {"status": "active"}, headers=seen)
            done = "entry-resumed"
        case "ceiling":
            ceiling = permissions_in(request.form.get("ceiling", ""))
            await request.api.request("PATCH", path, {"ceiling": ceiling}, headers=seen)
            done = "ceiling-changed"
        case "remove":
            if request.form.get("name") != name:
                raise FormRefused("the name that was typed is not the name of the entry")
            await request.api.request("DELETE", path)
            return Elsewhere(f"/console/{family}", "entry-removed")
        case _:
            raise FormRefused("the form names no act")
    return Elsewhere(f"/console/{family}/{name}", done)


def _chosen_definitions(form: Mapping[str, str]) -> dict[str, list[str]] | None:
    """Returns the definitions to approve by kind, as the form names them; None for all that wait. Raises FormRefused."""
    if "chosen" not in form:
        return None
    chosen: dict[str, list[str]] = {}
    for name, value in form.items():
        if name.startswith(CHOICE):
            kind, _, definition = value.partition(" ")
            chosen.setdefault(kind, []).append(definition)
    if not chosen:
        raise FormRefused("no definition is chosen")
    return chosen


async def _version(request: PageRequest, family: str) -> Page:
    """Shows one version of an entry, with what it changed side by side."""
    name, number = request.names
    path = f"{api_path(family, name)}/history/{api_path(number).removeprefix('/api/')}"
    version = await request.api.get(path)
    members = {"version": version, "name": name, "family": family}
    command = ("interlock", family.removesuffix("s"), "show", name)
    return Page("version.html", f"Version {version['seq']} of {name}", path, command, members)


async def _history(request: PageRequest, path: str, entry: Mapping[str, Any]) -> PagePart:
    """Returns the versions of an entry, to those who see the whole entry: a refusal of others would be recorded."""
    return await request.api.part(f"{path}/history", limit="20") if "owner" in entry else PagePart()


async def _tools(request: PageRequest, entry: Mapping[str, Any]) -> PagePart:
    """Returns the tools that the person may call, by name, with their definitions."""
    found = await list_tools(request, entry["name"]) if entry["status"] == "active" else []
    return PagePart({"items": found, "next": None})


def _may(request: PageRequest, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the page offers: the whole entry is shown to operators and its owner only."""
    waits = entry["status"] in AWAITING or bool(entry.get("drift")) or bool(entry.get("withheld"))
    return {
        "is_whole": "owner" in entry,
        "waits": waits,
        "is_own": not entry.get("client_id", "x"),
        "may_change": request.may(WRITE_REGISTRY),
    }
