"""The overview: what runs, waits, fails, is refused and costs, and what needs a person."""

from datetime import UTC, datetime, timedelta

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.console.api import gather, with_query
from gateway.ingress.console.page import Page, PageRequest

DAYS = 14  # of costs
SHOWN = 8  # rows of each list
NEWEST = 24  # tasks among which the last ones of people are looked for
FAILING_SHOWN = "100"  # agents, and as many servers


async def show_overview(request: PageRequest) -> Page:
    """Reads everything at once; a part that the person may not see is left out. Health and costs, which take longer, come after it."""
    api, everybody = request.api, _everybody(request)
    names = ("open", "waiting", "signing_in", "failed", "newest", "approvals", "checkpoints", "conflicts", "refusals")
    found = await gather(
        api.part("/api/tasks", state="TASK_STATE_WORKING", **everybody),
        api.part("/api/tasks", state="TASK_STATE_INPUT_REQUIRED", **everybody),
        api.part("/api/tasks", state="TASK_STATE_AUTH_REQUIRED", **everybody),
        api.part("/api/tasks", state="TASK_STATE_FAILED", **everybody),
        api.part("/api/tasks", limit=str(NEWEST), **everybody),
        api.part("/api/approvals", state="pending"),
        api.part("/api/checkpoints"),
        api.part("/api/subjects", conflicts="open", **everybody),
        api.part("/api/decisions", limit=str(SHOWN), **everybody),
    )
    since = (datetime.now(UTC).date() - timedelta(days=DAYS - 1)).isoformat()
    parts = dict(zip(names, found, strict=True))
    members = {
        **parts,
        "recent": [task for task in parts["newest"].items if not task["parent_id"].startswith("t_")][: SHOWN // 2],
        "costs": with_query("/console/cost", {"by": "day", "since": since, **everybody}),
        "shown": SHOWN,
        "everybody": bool(everybody),
        "may_see_everybody": request.may(READ_AUDIT),
    }
    return Page("overview.html", "Overview", "/api/tasks", ("interlock", "task", "list"), members, is_live=not everybody)


async def show_health(request: PageRequest) -> Page:
    """Lists the agents and servers that need a look: that can't be called, or failed their last check. Raises ApiRefusal."""
    asked = {"failing": "true", "limit": FAILING_SHOWN}
    agents, servers = await gather(request.api.part("/api/agents", **asked), request.api.part("/api/servers", **asked))
    entries = [{**entry, "family": family} for part, family in ((agents, "agents"), (servers, "servers")) for entry in part.items]
    is_more = any(part.document and part.document["next"] for part in (agents, servers))
    members = {"entries": entries, "agents": agents, "servers": servers, "is_more": is_more}
    return Page("health.html", "Health", with_query("/api/agents", asked), ("interlock", "agent", "list", "--failing"), members)


def _everybody(request: PageRequest) -> dict[str, str]:
    return {"everybody": "true"} if request.query.get("everybody") else {}
