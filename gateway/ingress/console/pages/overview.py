"""The overview: what runs, waits, fails, is refused and costs, and what needs a person."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.console.api import PagePart, gather
from gateway.ingress.console.page import Page, PageRequest

DAYS = 14  # of the chart of costs
SHOWN = 8  # rows of each list


async def show_overview(request: PageRequest) -> Page:
    """Reads everything at once; a part that the person may not see is left out."""
    api, everybody = request.api, _everybody(request)
    names = ("open", "waiting", "signing_in", "failed", "approvals", "checkpoints", "agents", "servers", "conflicts", "costs")
    since = (datetime.now(UTC).date() - timedelta(days=DAYS - 1)).isoformat()
    found = await gather(
        api.part("/api/tasks", state="TASK_STATE_WORKING", **everybody),
        api.part("/api/tasks", state="TASK_STATE_INPUT_REQUIRED", **everybody),
        api.part("/api/tasks", state="TASK_STATE_AUTH_REQUIRED", **everybody),
        api.part("/api/tasks", state="TASK_STATE_FAILED", **everybody),
        api.part("/api/approvals", state="pending"),
        api.part("/api/checkpoints"),
        api.part("/api/agents", limit="200"),
        api.part("/api/servers", limit="200"),
        api.part("/api/subjects", conflicts="open", **everybody),
        api.part("/api/cost", by="day", since=since, **everybody),
    )
    parts = dict(zip(names, found, strict=True))
    members = {
        **parts,
        "refusals": await _refusals(request),
        "entries": [*_entries(parts["agents"], "agents"), *_entries(parts["servers"], "servers")],
        "days": _days(parts["costs"], since),
        "shown": SHOWN,
        "everybody": bool(everybody),
        "may_see_everybody": request.may(READ_AUDIT),
    }
    return Page("overview.html", "Overview", "/api/tasks", ("interlock", "task", "list"), members, is_live=not everybody)


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


def _days(part: PagePart, since: str) -> list[dict[str, Any]]:
    """Returns every day of the chart, also those without costs."""
    known = {item["day"]: item for item in part.items}
    first = datetime.fromisoformat(since).date()
    days = ((first + timedelta(days=number)).isoformat() for number in range(DAYS))
    return [known.get(day, {"day": day, "amount": None, "unpriced": 0}) for day in days]
