"""Why: one decision as a picture, and the question what a person may do."""

from typing import Any

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.console.api import api_path
from gateway.ingress.console.drawings.gates import draw_gates, suggest_change
from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.page import Elsewhere, Page, PageRequest

ACTIONS = (("callTool", "Tool", "call the tool"), ("invokeAgent", "Agent", "delegate to the agent"))
SHOWN = 20


async def ask_why(request: PageRequest) -> Page:
    """Takes the id of a decision, lists the last decisions for auditors, and evaluates a question."""
    wanted = request.query.get("id", "").strip()
    may_audit = request.may(READ_AUDIT)
    audit = await request.api.part("/api/audit", kind="decision", limit="100") if may_audit and request.query.get("recent") else None
    members = {
        "wanted": wanted,
        "may_audit": may_audit,
        "audit": audit,
        "recent": [record for record in audit.items if not record["allowed"]][:SHOWN] if audit else [],
        "actions": ACTIONS,
        "asked": request.query,
        "evaluation": await _evaluate(request),
    }
    return Page("why_ask.html", "Why", "/api/audit?kind=decision", ("interlock", "why", "DECISION_ID"), members)


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


async def _evaluate(request: PageRequest) -> dict[str, Any] | None:
    """Asks the authority what it would rule (AuthZEN 1.0); None where nothing is asked."""
    asked = request.query
    if not asked.get("action") or not asked.get("resource"):
        return None
    kind = next((kind for action, kind, _ in ACTIONS if action == asked["action"]), "Tool")
    chain = [name.strip() for name in asked.get("chain", "").split(",") if name.strip()]
    document: dict[str, Any] = {
        "subject": {"type": "user", "id": asked.get("person") or request.caller.principal.owner_key},
        "action": {"name": asked["action"]},
        "resource": {"type": kind.lower(), "id": asked["resource"].strip()},
    }
    if chain:
        document["context"] = {"chain": chain}
    part = await request.api.part_of("POST", "/access/v1/evaluation", document)
    context = part.document.get("context", {}) if part.document else {}
    problem = part.refusal.problem.get("detail", "") if part.refusal else context.get("error", {}).get("message", "")
    if problem:
        return {"problem": problem}
    permission = f"{kind.lower()}:{document['resource']['id']}"
    ruled = {
        "principal": document["subject"]["id"],
        "roles": None,
        "permission": permission,
        "allowed": part.document["decision"],
        **context,
    }
    return {"problem": "", "ruled": ruled, "gates": draw_gates(ruled), "change": "" if ruled["allowed"] else suggest_change(ruled)}
