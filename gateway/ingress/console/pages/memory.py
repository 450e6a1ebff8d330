"""Memory: what is remembered, who wrote it, and how a person corrects, forgets and takes it along."""

from typing import Any

from gateway.ingress.console.api import PagePart, api_path, with_query
from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.page import Elsewhere, Page, PageRequest
from gateway.state.memory.quarantine import CHANGE_MEMORY

FILTERS = ("q", "scope", "cursor")
MEMORY, MYSELF = "/console/memory", "me"


async def list_facts(request: PageRequest) -> Page:
    """Lists or finds facts of a scope. A scope that the person may not read is a part that is refused."""
    filters = {name: request.query[name] for name in FILTERS if request.query.get(name)}
    may_change = request.may(CHANGE_MEMORY)
    held = await request.api.part("/api/memory/quarantines") if may_change and request.query.get("quarantines") else PagePart()
    members = {
        "facts": await request.api.part("/api/memory", **filters),
        "filters": {name: filters.get(name, "") for name in FILTERS},
        "held": held,
        "may_change": may_change,
        "shows_held": bool(request.query.get("quarantines")),
    }
    command = ("interlock", "memory", "search", filters.get("q", "WORDS"))
    return Page("memory.html", "Memory", with_query("/api/memory", filters), command, members)


async def show_fact(request: PageRequest) -> Page:
    """Shows a fact with its source and its older versions. Raises ApiRefusal."""
    path = api_path("memory", request.name)
    fact = await request.api.get(path)
    return Page("fact.html", "What is remembered", path, ("interlock", "memory", "show", fact["id"]), {"fact": fact})


async def act_on_fact(request: PageRequest) -> Elsewhere:
    """Corrects or forgets a fact. Raises ApiRefusal, also where it changed since the page was loaded, and FormRefused."""
    path = api_path("memory", request.name)
    match request.form.get("act", ""):
        case "correct":
            seen = {"if-match": f'"{request.form.get("version", "")}"'}
            changes: dict[str, Any] = {"text": request.form.get("text", "")}
            if expires := request.form.get("expires", ""):
                changes["expires"] = f"{expires}T00:00:00Z"
            await request.api.request("PATCH", path, changes, headers=seen)
            return Elsewhere(f"{MEMORY}/{request.name}", "corrected")
        case "forget":
            await request.api.request("DELETE", path)
            return Elsewhere(MEMORY, "forgotten")
    raise FormRefused("the form names no act")


async def act_on_memory(request: PageRequest) -> Elsewhere:
    """Erases what is remembered of a person, or holds back or releases what an agent wrote. Raises ApiRefusal and FormRefused."""
    agent = request.form.get("agent", "").strip()
    match request.form.get("act", ""):
        case "erase":
            person = request.form.get("person", "").strip() or MYSELF
            if request.form.get("sure") != "yes":
                raise FormRefused("the box that says that you are sure is not ticked")
            await request.api.request("DELETE", "/api/memory", query={"person": person})
            return Elsewhere(MEMORY, "erased")
        case "hold" if agent:
            await request.api.request("POST", "/api/memory/quarantines", {"agent": agent, "reason": request.form.get("reason", "")})
            return Elsewhere(f"{MEMORY}?quarantines=true", "held")
        case "release" if agent:
            await request.api.request("DELETE", api_path("memory", "quarantines", agent))
            return Elsewhere(f"{MEMORY}?quarantines=true", "released")
    raise FormRefused("the form names no act")
