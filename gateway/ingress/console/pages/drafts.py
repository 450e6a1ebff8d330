"""Evaluate and replay: how the gateway would rule, by the policies in force and by a draft that is neither stored nor enforced."""

from typing import Any

from gateway.audit.what_if import WRITE_POLICY
from gateway.ingress.console.api import ApiRefusal
from gateway.ingress.console.drawings.gates import draw_gates, suggest_change
from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.page import Page, PageRequest
from gateway.ingress.console.schema_forms import parse_json

ACTIONS = (("callTool", "Tool", "call the tool"), ("invokeAgent", "Agent", "delegate to the agent"))
ONLY = (("all", "all decisions"), ("denied", "refusals"), ("allowed", "what was allowed"))
ASKED = ("person", "chain", "action", "resource", "arguments")
REPLAYED_AT_ONCE = 100  # decisions of one request
COMMAND_VALUE_MAX = 200  # characters
DRAFT_FILE = "console-draft.cedar"
POLICIES = "/api/policies"
EVALUATION, DRAFT_EVALUATION, WHAT_IF = "/access/v1/evaluation", f"{POLICIES}/evaluate", f"{POLICIES}/what-if"


async def show_evaluation(request: PageRequest) -> Page:
    """Takes a question, and answers one that the address has. Raises ApiRefusal and FormRefused."""
    return await _evaluation_page(request, dict(request.query))


async def evaluate_draft(request: PageRequest) -> Page:
    """Answers a question by the policies in force, and by the draft of the form. Raises ApiRefusal and FormRefused."""
    return await _evaluation_page(request, dict(request.form))


async def show_replay(request: PageRequest) -> Page:
    """Takes a draft."""
    return _replay_page(request, {"only": request.query.get("only", "all"), "beside": "true"}, None)


async def replay_draft(request: PageRequest) -> Page:
    """Rules on past decisions by the draft of the form, some at a time. Raises FormRefused."""
    form = dict(request.form)
    if not form.get("draft", "").strip():
        raise FormRefused("the form has no draft")
    return _replay_page(request, form, await request.api.part_of("POST", WHAT_IF, _replay_body(form)))


def _replay_body(form: dict[str, str]) -> dict[str, Any]:
    return {**_draft_members(form), "only": form.get("only") or "all", "limit": REPLAYED_AT_ONCE, "cursor": form.get("cursor", "")}


def _replay_page(request: PageRequest, asked: dict[str, str], part: Any) -> Page:
    items = part.items if part is not None else []
    found = part.document if part is not None else None
    past = {name: _count_in(asked.get(name, "")) for name in ("replayed", "changed", "unknown")}
    members = {
        "asked": {name: asked.get(name, "") for name in ("draft", "beside", "only")},
        "only": ONLY,
        "part": part,
        "changed": [each for each in items if each["changed"] is not False],
        "counts": {name: number + (found["summary"][name] if found else 0) for name, number in past.items()},
        "may_draft": request.may(WRITE_POLICY),
    }
    command = ("interlock", "policy", "what-if", "FOLDER", "--only", asked.get("only") or "all")
    posted = (WHAT_IF, _replay_body({"draft": "", **asked}))
    return Page("replay.html", "Replay past decisions", POLICIES, command, members, posted=posted)


def _count_in(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


async def _evaluation_page(request: PageRequest, asked: dict[str, str]) -> Page:
    may_draft = request.may(WRITE_POLICY)
    posted = _evaluation_request(request, asked) if asked.get("action") and asked.get("resource") else None
    members = {
        "asked": {name: asked.get(name, "") for name in (*ASKED, "draft", "beside")},
        "actions": ACTIONS,
        "may_draft": may_draft,
        "rulings": await _rulings(request, *posted) if posted else None,
    }
    options = (("--who", "person"), ("--chain", "chain"), ("--arguments", "arguments"))
    given = [word for option, name in options if asked.get(name, "").strip() for word in (option, _shown_value(asked[name], name))]
    draft = ("--draft", "FOLDER") if asked.get("draft", "").strip() else ()
    command = ("interlock", "policy", "evaluate", f"{_kind_of(asked).lower()}:{asked.get('resource') or 'NAME'}", *given, *draft)
    api = POLICIES if may_draft else "/api/whoami"
    return Page("evaluate.html", "Evaluate", api, command, members, posted=posted)


def _evaluation_request(request: PageRequest, asked: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """Returns the path and the body of the request that the form stands for. Raises FormRefused."""
    document = _question(request, asked)
    return (DRAFT_EVALUATION, {**document, **_draft_members(asked)}) if asked.get("draft", "").strip() else (EVALUATION, document)


async def _rulings(request: PageRequest, path: str, document: dict[str, Any]) -> dict[str, Any]:
    """Returns the rulings as pictures, or the problem with the question."""
    try:
        found = await request.api.request("POST", path, document)
        shown = [("What would be ruled now", found)]
        if path == DRAFT_EVALUATION:
            shown = [("By the policies in force", found["now"]), ("By the draft", found["draft"])]
    except ApiRefusal as refusal:
        return {"problem": str(refusal.problem.get("detail", "")), "shown": []}
    return {"problem": "", "shown": [_picture(title, ruling, document) for title, ruling in shown]}


def _shown_value(text: str, name: str) -> str:
    """Returns a value of the form for the command that does the same; a long one has to be filled in."""
    return text.strip() if len(text) <= COMMAND_VALUE_MAX else name.upper()


def _question(request: PageRequest, asked: dict[str, str]) -> dict[str, Any]:
    """Returns the request for an evaluation (AuthZEN 1.0 s6). Raises FormRefused for arguments that are no JSON object."""
    chain = [name.strip() for name in asked.get("chain", "").split(",") if name.strip()]
    context: dict[str, Any] = {"chain": chain} if chain else {}
    if asked.get("arguments", "").strip():
        context["arguments"] = _parse_arguments(asked["arguments"])
    return {
        "subject": {"type": "user", "id": asked.get("person", "").strip() or request.caller.principal.owner_key},
        "action": {"name": asked["action"]},
        "resource": {"type": _kind_of(asked).lower(), "id": asked["resource"].strip()},
        **({"context": context} if context else {}),
    }


def _parse_arguments(text: str) -> dict[str, Any]:
    found = parse_json(text, "the arguments")
    if not isinstance(found, dict):
        raise FormRefused("the arguments are not a JSON object")
    return found


def _draft_members(asked: dict[str, str]) -> dict[str, Any]:
    return {"policies": {DRAFT_FILE: asked["draft"]}, "beside_current": bool(asked.get("beside"))}


def _kind_of(asked: dict[str, str]) -> str:
    return next((kind for action, kind, _ in ACTIONS if action == asked.get("action")), "Tool")


def _picture(title: str, ruling: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    context, resource = ruling["context"], document["resource"]
    if "error" in context:
        return {"title": title, "problem": context["error"]["message"]}
    permission = f"{resource['type']}:{resource['id']}"
    ruled = {"principal": document["subject"]["id"], "roles": None, "permission": permission, "allowed": ruling["decision"], **context}
    change = "" if ruled["allowed"] else suggest_change(ruled)
    return {"title": title, "problem": "", "ruled": ruled, "gates": draw_gates(ruled), "change": change}
