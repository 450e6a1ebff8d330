"""The overview: what runs, waits, fails, is refused and costs, and what needs a person."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.console.api import PagePart, gather, with_query
from gateway.ingress.console.page import Page, PageRequest

DAYS = 14  # of costs
SHOWN = 8  # rows of each list
NEWEST = 24  # tasks among which the last ones of people are looked for


async def show_overview(request: PageRequest) -> Page:
    """Reads everything at once; a part that the person may not see is left out. Health and costs, which take longer, come after it."""
    api, everybody = request.api, _everybody(request)
    names = ("open", "waiting", "signing_in", "failed", "newest", "approvals", "checkpoints", "conflicts")
    found = await gather(
        api.part("/api/tasks", state="TASK_STATE_WORKING", **everybody),
        api.part("/api/tasks", state="TASK_STATE_INPUT_REQUIRED", **everybody),
        api.part("/api/tasks", state="TASK_STATE_AUTH_REQUIRED", **everybody),
        api.part("/api/tasks", state="TASK_STATE_FAILED", **everybody),
        api.part("/api/tasks", limit=str(NEWEST), **everybody),
        api.part("/api/approvals", state="pending"),
        api.part("/api/checkpoints"),
        api.part("/api/subjects", conflicts="open", **everybody),
    )
    since = (datetime.now(UTC).date() - timedelta(days=DAYS - 1)).isoformat()
    parts = dict(zip(names, found, strict=True))
    members = {
        **parts,
        "recent": [task for task in parts["newest"].items if not task["parent_id"].startswith("t_")][: SHOWN // 2],
        "refusals": await _refusals(request),
        "costs": with_query("/console/cost", {"by": "day", "since": since, **everybody}),
        "shown": SHOWN,
        "everybody": bool(everybody),
        "may_see_everybody": request.may(READ_AUDIT),
    }
    return Page("overview.html", "Overview", "/api/tasks", ("interlock", "task", "list"), members, is_live=not everybody)


async def show_health(request: PageRequest) -> Page:
    """Lists the agents and servers that need a look. Raises ApiRefusal."""
    agents, servers = await gather(request.api.part("/api/agents", limit="200"), request.api.part("/api/servers", limit="200"))
    entries = [*_entries(agents, "agents"), *_entries(servers, "servers")]
    members = {"entries": entries, "agents": agents, "servers": servers}
    return Page("health.html", "Health", "/api/agents?limit=200", ("interlock", "agent", "list"), members)


def _everybody(request: PageRequest) -> dict[str, str]:
    return {"everybody": "true"} if request.query.get("everybody") else {}


async def _refusals(request: PageRequest) -> list[Mapping[str, Any]]:
    """Returns the latest refusals in the audit, for those who look at everybody and may read it."""
    if not request.query.get("everybody"):
        return []
    part = await request.api.part("/api/audit", kind="decision", limit="200")
    return [record for record in part.items if not record["allowed"]][:SHOWN]


def _entries(part: PagePart, family: str) -> list[dict[str, Any]]:
    """Returns the entries that need a look: neither active nor healthy."""
    return [
        {**entry, "family": family}
        for entry in part.items
        if entry["status"] != "active" or entry.get("healthy") is False or entry.get("killed")
    ]
