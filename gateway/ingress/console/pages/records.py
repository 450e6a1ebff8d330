"""What is recorded: subjects with their conflicts, the audit, and costs."""

from datetime import date, timedelta
from typing import Any

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.console.api import api_path, with_query
from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.page import Elsewhere, Page, PageRequest

AUDIT_FILTERS = ("kind", "txn", "decision_id", "person", "cursor")
COST_FILTERS = ("by", "since", "until", "everybody", "cursor")
GROUPS = ("day", "person", "agent", "tool", "workflow")


async def list_subjects(request: PageRequest) -> Page:
    """Lists open conflicts, and takes the name of a subject. Raises ApiRefusal."""
    everybody = {"everybody": "true"} if request.query.get("everybody") else {}
    document = await request.api.get("/api/subjects", conflicts="open", **everybody)
    members = {"conflicts": document, "everybody": bool(everybody), "may_see_everybody": request.may(READ_AUDIT)}
    api = with_query("/api/subjects", {"conflicts": "open", **everybody})
    return Page("subjects.html", "Subjects", api, ("interlock", "subject", "conflicts"), members)


async def find_subject(request: PageRequest) -> Elsewhere:
    """Leads to the subject that a form names. Raises FormRefused."""
    wanted = request.form.get("subject", "").strip()
    if not wanted or "/" in wanted:
        raise FormRefused("the form names no subject")
    return Elsewhere(api_path("subjects", wanted).replace("/api/", "/console/", 1))


async def show_subject(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    path = api_path("subjects", request.name)
    subject = await request.api.get(path)
    command = ("interlock", "subject", "show", subject["subject"])
    return Page("subject.html", f"Subject {subject['subject']}", path, command, {"subject": subject})


async def show_audit(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    filters = {name: request.query[name] for name in AUDIT_FILTERS if request.query.get(name)}
    document = await request.api.get("/api/audit", **filters)
    exported = with_query("", {name: value for name, value in filters.items() if name != "cursor"})
    members = {"records": document, "filters": {name: filters.get(name, "") for name in AUDIT_FILTERS}, "exported": exported}
    return Page("audit.html", "Audit", with_query("/api/audit", filters), ("interlock", "audit", "verify"), members)


async def show_verification(request: PageRequest) -> Page:
    """Verifies the newest records of the audit. Raises ApiRefusal."""
    path = "/api/audit/verification"
    members = {"proof": await request.api.get(path)}
    return Page("verification.html", "Verification of the audit", path, ("interlock", "audit", "verify"), members)


async def show_costs(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    filters = {name: request.query[name] for name in COST_FILTERS if request.query.get(name)}
    document = await request.api.get("/api/cost", **filters)
    by = filters.get("by", GROUPS[0])
    members = {
        "costs": document,
        "filters": {name: filters.get(name, "") for name in COST_FILTERS},
        "by": by if by in GROUPS else GROUPS[0],
        "days": _days(document["items"]) if by == GROUPS[0] else [],
        "groups": GROUPS,
        "may_see_everybody": request.may(READ_AUDIT),
    }
    return Page("cost.html", "Cost", with_query("/api/cost", filters), ("interlock", "cost", "--by", by), members)


def _days(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns every day from the first one with costs to the last, also those without any."""
    known = {item["day"]: item for item in items}
    if not known:
        return []
    first, last = date.fromisoformat(min(known)), date.fromisoformat(max(known))
    days = [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]
    return [known.get(day, {"day": day, "amount": None}) for day in days]
