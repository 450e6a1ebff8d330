"""Why: one decision as a picture."""

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.console.api import api_path, with_query
from gateway.ingress.console.drawings.gates import draw_gates, suggest_change
from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.page import Elsewhere, Page, PageRequest

SHOWN = "20"  # refusals


async def ask_why(request: PageRequest) -> Page:
    """Takes the id of a decision, and lists the last refusals: of the person, or for auditors of the whole tenant."""
    may_audit = request.may(READ_AUDIT)
    everybody = {"everybody": "true"} if may_audit and request.query.get("everybody") else {}
    asked = {"limit": SHOWN, **everybody}
    members = {
        "wanted": request.query.get("id", "").strip(),
        "may_see_everybody": may_audit,
        "everybody": bool(everybody),
        "refusals": await request.api.part("/api/decisions", **asked),
    }
    return Page("why_ask.html", "Why", with_query("/api/decisions", asked), ("interlock", "why"), members)


async def find_why(request: PageRequest) -> Elsewhere:
    """Leads to the decision that a form names. Raises FormRefused."""
    wanted = request.form.get("id", "").strip()
    if not wanted or "/" in wanted:
        raise FormRefused("the form names no decision")
    return Elsewhere(f"/console/why/{wanted}")


async def show_why(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    path = api_path("decisions", request.name)
    decision = await request.api.get(path)
    members = {"decision": decision, "gates": draw_gates(decision), "change": "" if decision["allowed"] else suggest_change(decision)}
    title = f"Why {decision['resource']} was {'allowed' if decision['allowed'] else 'refused'}"
    return Page("why.html", title, path, ("interlock", "why", decision["id"]), members)
