"""The inbox: approvals that policies ask for, and questions of runs, each with all that a decision needs."""

from typing import Any

from gateway.ingress.console.api import ApiRefusal, api_path, gather
from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.page import Elsewhere, Page, PageRequest
from gateway.ingress.console.schema_forms import fields_of, options_of, read_value

EARLIER_MAX = 5  # cases that were decided before
INBOX = "/console/inbox"


async def show_inbox(request: PageRequest) -> Page:
    """Reads what waits, and what was decided last."""
    waiting, checkpoints, decided = await gather(
        request.api.part("/api/approvals", state="pending"),
        request.api.part("/api/checkpoints"),
        request.api.part("/api/approvals", limit="20"),
    )
    closed = [each for each in decided.items if each["state"] != "pending"]
    members = {"waiting": waiting, "checkpoints": checkpoints, "closed": closed}
    return Page("inbox.html", "Approvals and questions", "/api/approvals", ("interlock", "approval", "list"), members, is_live=True)


async def show_approval(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    path = api_path("approvals", request.name)
    approval = await request.api.get(path)
    decision, others = await gather(
        request.api.part(api_path("decisions", approval["decision_id"])), request.api.part("/api/approvals", limit="200")
    )
    same = (approval["action"], approval["resource"])
    earlier = [each for each in others.items if (each["action"], each["resource"]) == same and each["state"] not in ("pending", "void")]
    me = request.caller.principal.owner_key
    members = {
        "approval": approval,
        "decision": decision,
        "earlier": [each for each in earlier if each["id"] != approval["id"]][:EARLIER_MAX],
        "is_own": approval["requester"]["principal"] == me,
        "is_full": "arguments" in approval,
        "has_voted": any(vote["by"] == me for vote in approval.get("votes", ())),
    }
    command = ("interlock", "approval", "show", approval["id"])
    return Page("approval.html", f"Approval for {approval['resource']}", path, command, members, is_live=approval["state"] == "pending")


async def decide_approval(request: PageRequest) -> Elsewhere:
    """Records a vote. Raises ApiRefusal, and FormRefused for a form without one."""
    verdict = request.form.get("decision", "")
    if verdict not in ("approve", "deny"):
        raise FormRefused("the form names no decision")
    body = {"decision": verdict, "reason": request.form.get("reason", "")}
    await request.api.request("POST", f"{api_path('approvals', request.name)}/decision", body)
    return Elsewhere(f"/console/approvals/{request.name}", "approved" if verdict == "approve" else "denied")


async def show_checkpoint(request: PageRequest) -> Page:
    """Shows an open question. Raises ApiRefusal for one that is answered, or that the person may not see."""
    checkpoint = await _find_checkpoint(request)
    run = await request.api.part(api_path("runs", checkpoint["run"]))
    schema = checkpoint["schema"]
    members = {"checkpoint": checkpoint, "run": run, "fields": fields_of(schema), "options": options_of(schema)}
    command = ("interlock", "run", "answer", checkpoint["id"], "JSON")
    return Page("checkpoint.html", f"Question of {checkpoint['workflow']}", "/api/checkpoints", command, members)


async def answer_checkpoint(request: PageRequest) -> Elsewhere:
    """Answers a question. Raises ApiRefusal and FormRefused."""
    checkpoint = await _find_checkpoint(request)
    verdict = request.form.get("decision")
    if checkpoint["kind"] == "approve" and verdict in ("approve", "deny"):
        reason = request.form.get("reason", "")
        value: Any = {"approved": verdict == "approve", **({"reason": reason} if reason else {})}
    else:
        value = read_value(checkpoint["schema"], request.form)
    await request.api.request("POST", f"{api_path('checkpoints', checkpoint['id'])}/answer", {"value": value})
    return Elsewhere(INBOX, "answered")


async def _find_checkpoint(request: PageRequest) -> dict[str, Any]:
    """Returns an open checkpoint that the person may see. Raises ApiRefusal."""
    cursor: str | None = ""
    while cursor is not None:
        page = await request.api.get("/api/checkpoints", limit="200", **({"cursor": cursor} if cursor else {}))
        found = next((each for each in page["items"] if each["id"] == request.name), None)
        if found is not None:
            return dict(found)
        cursor = page["next"]
    raise ApiRefusal(404, {"title": "Not open", "detail": "This question is answered, withdrawn or expired, or it is not for you to see."})
