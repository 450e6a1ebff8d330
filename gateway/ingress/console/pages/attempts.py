"""Try it: forms for an agent's skills and a server's tools, and what becomes of the call, with the raw messages of both sides."""

import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final

from adapters.mcp_client.wire.messages import CAPABILITIES_KEY, MODERN, VERSION_KEY, header_text
from adapters.mcp_client.wire.param_headers import find_header_arguments, headers_for
from gateway.ingress.console.api import api_path
from gateway.ingress.console.attempts.agent_progress import AgentProgress
from gateway.ingress.console.attempts.requests import Attempt
from gateway.ingress.console.attempts.tool_progress import ToolProgress
from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.page import GrowingPage, Page, PageRequest
from gateway.ingress.console.schema_forms import PREFIX, WHOLE, fields_of, parse_json, read_value
from gateway.tasks.contracts.skills import SKILL_FORMS_EXTENSION
from registry.cards.republish import SKILL_SELECTION

PART: Final = "try_result.html"
WAIT_SECONDS: Final = 120.0  # for an agent; its task goes on after that
TOOL_SECONDS: Final = 3600.0  # for a tool: the gateway ends its calls before
PROGRESS: Final = "console"  # names the notifications of the call, which has a request of its own
TEXT_MAX: Final = 50_000
TOOL_PAGES_MAX: Final = 50  # of a list of tools
ONCE: Final = "once"  # the field that makes each form count once


async def show_agent_form(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    return await _agent_page(request, {})


async def send_to_agent(request: PageRequest) -> GrowingPage:
    """Sends a message with an idempotency key: a form that is sent twice shows the same task. Raises ApiRefusal and FormRefused."""
    once, form = _one_time_text(request), request.form
    page = await _agent_page(request, form)
    skill, schema = page.members["skill"], page.members["schema"]
    parts = _parts_of(schema, form)
    message: dict[str, Any] = {"messageId": f"console-{once}", "role": "ROLE_USER", "parts": parts}
    message |= {name: form[field] for name, field in (("taskId", "task"), ("contextId", "context")) if form.get(field)}
    headers = {"a2a-version": "1.0", "idempotency-key": f"console-{once}"}
    if skill:
        message["metadata"] = {SKILL_SELECTION: {"skillId": skill}}
        headers["a2a-extensions"] = SKILL_SELECTION
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": {"message": message}}
    progress = AgentProgress()
    attempt = request.protocols.attempt(f"/agents/{page.members['entry']['name']}", headers, body, progress.fold)
    return GrowingPage(_agent_pages(request, page, attempt, progress), PART)


async def show_tool_form(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    return await _tool_page(request, {})


async def send_to_tool(request: PageRequest) -> GrowingPage:
    """Calls a tool, once for each form. Raises ApiRefusal and FormRefused."""
    once, page = _one_time_text(request), await _tool_page(request, request.form)
    tool, schema = page.members["tool"], page.members["schema"]
    if tool is None:
        raise FormRefused("the form names no tool")
    arguments = read_value(schema, request.form)
    if not isinstance(arguments, dict):
        raise FormRefused("the arguments are not a JSON object")
    if not await request.spend(once):
        raise FormRefused("this form was sent already, and nothing is sent twice; load the form again to call the tool anew")
    name = tool["name"]
    meta = {VERSION_KEY: MODERN, CAPABILITIES_KEY: {"elicitation": {"url": {}}}, "progressToken": PROGRESS}
    params = {"name": name, "arguments": arguments, "_meta": meta}
    progress, path = ToolProgress(), f"/mcp/{page.members['entry']['name']}"
    mirrored = headers_for(tuple(find_header_arguments(schema)), arguments)
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    attempt = request.protocols.attempt(path, {**_mcp_headers("tools/call", name), **mirrored}, body, progress.fold)
    return GrowingPage(_tool_pages(request, page, attempt, progress), PART)


async def list_tools(request: PageRequest, server: str) -> list[dict[str, Any]]:
    """Returns the tools of a server that the person may call, with their definitions."""
    found: list[dict[str, Any]] = []
    cursor = ""
    for number in range(TOOL_PAGES_MAX):
        params: dict[str, Any] = {"_meta": {VERSION_KEY: MODERN, CAPABILITIES_KEY: {}}, **({"cursor": cursor} if cursor else {})}
        body = {"jsonrpc": "2.0", "id": number, "method": "tools/list", "params": params}
        result = (await request.protocols.read(f"/mcp/{server}", _mcp_headers("tools/list"), body)).get("result") or {}
        found += [tool for tool in result.get("tools", ()) if isinstance(tool, dict) and isinstance(tool.get("name"), str)]
        cursor = result.get("nextCursor") or ""
        if not cursor:
            break
    return found


async def _agent_page(request: PageRequest, form: Mapping[str, str]) -> Page:
    """Returns the page with the form for a skill of an agent, filled in with what was sent. Raises ApiRefusal."""
    path = api_path("agents", request.name)
    entry = await request.api.get(path)
    skills = [skill["id"] for skill in entry["skills"]]
    wanted = form.get("skill", request.query.get("skill", skills[0] if len(skills) == 1 else ""))
    skill = wanted if wanted in skills else ""
    schema = input_schema_of(entry, skill)
    task = form.get("task", request.query.get("task", ""))
    context = form.get("context", request.query.get("context", ""))
    members = {
        **_form_members(request, schema if not task else None, form),
        "family": "agents",
        "entry": entry,
        "skill": skill,
        "skills": entry["skills"],
        "tool": None,
        "task": task,
        "context": context,
    }
    command = ("interlock", "send", entry["name"], "TEXT")
    return Page("try.html", f"Try {entry['name']}", path, command, members)


async def _tool_page(request: PageRequest, form: Mapping[str, str]) -> Page:
    """Returns the page with the form for a tool, filled in with what was sent. Raises ApiRefusal."""
    path = api_path("servers", request.name)
    entry = await request.api.get(path)
    tools = await list_tools(request, entry["name"])
    wanted = form.get("tool", request.query.get("tool", tools[0]["name"] if len(tools) == 1 else ""))
    tool = next((each for each in tools if each["name"] == wanted), None)
    members = {
        **_form_members(request, tool.get("inputSchema") if tool else None, form),
        "family": "servers",
        "entry": entry,
        "tool": tool,
        "tools": tools,
        "wanted": wanted,
        "skill": "",
    }
    command = ("interlock", "call", f"{entry['name']}_{tool['name']}" if tool else "TOOL", "JSON")
    return Page("try.html", f"Try {tool['name'] if tool else entry['name']}", path, command, members)


def input_schema_of(entry: Mapping[str, Any], skill: str) -> Any:
    """Returns the schema of an agent's input: of the contract of the skill or of all skills, else what the card says of the skill."""
    contracts = entry["contracts"]
    contract = contracts.get(skill) or contracts.get("")
    if contract:
        return contract.get("input")
    capabilities = (entry.get("card") or {}).get("capabilities")
    extensions = capabilities.get("extensions") if isinstance(capabilities, dict) else None
    for each in extensions if isinstance(extensions, list) else ():
        params = each.get("params") if isinstance(each, dict) and each.get("uri") == SKILL_FORMS_EXTENSION else None
        forms = params.get("skills") if isinstance(params, dict) else None
        form = forms.get(skill) if isinstance(forms, dict) else None
        if isinstance(form, dict):
            return form.get("inputSchema")
    return None


def _form_members(request: PageRequest, schema: Any, form: Mapping[str, str]) -> dict[str, Any]:
    as_json = WHOLE in form or (not form and request.query.get("as") == "json")
    given = None
    if form and not as_json:
        given = read_value(schema, form)
    return {
        "schema": schema,
        "fields": () if as_json else fields_of(schema, given),
        "form": form,
        "as_json": as_json,
        ONCE: secrets.token_urlsafe(16),
        "result": None,
    }


def _one_time_text(request: PageRequest) -> str:
    """Returns what makes this form count once. Raises FormRefused."""
    once = request.form.get(ONCE, "")
    if not 16 <= len(once) <= 64 or not once.isascii() or not once.replace("-", "").replace("_", "").isalnum():
        raise FormRefused("the form is not one of this page; load it again")
    return once


def _parts_of(schema: Any, form: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns the parts of the message: the text, and the data of the form. Raises FormRefused."""
    text, parts = form.get("text", "")[:TEXT_MAX], list[dict[str, Any]]()
    if text.strip():
        parts.append({"text": text})
    if form.get(WHOLE, "").strip():
        parts.append({"data": parse_json(form[WHOLE], "the data")})
    elif WHOLE not in form and any(name.startswith(PREFIX) for name in form):
        parts.append({"data": read_value(schema, form)})
    if not parts:
        raise FormRefused("the message is empty: write a text, or data")
    return parts


def _mcp_headers(method: str, name: str = "") -> dict[str, str]:
    named = {"mcp-name": header_text(name)} if name else {}
    return {"mcp-protocol-version": MODERN, "mcp-method": method, **named}


async def _agent_pages(request: PageRequest, page: Page, attempt: Attempt, progress: AgentProgress) -> AsyncGenerator[Page, None]:
    """Yields the page while the agent works, and at the end with what the task is known for."""
    async with aclosing(attempt.changes(WAIT_SECONDS)) as changes:
        async for _ in changes:
            if not attempt.has_ended:
                yield _with_result(page, attempt, _agent_result(progress, "running"))
        result = _agent_result(progress, "ended" if attempt.has_ended else "goes on")
        if progress.task_id:
            task = await request.api.part(api_path("tasks", progress.task_id))
            result["decision_id"] = task.document["decision_id"] if task.document else ""
            if progress.waits:
                waiting = await request.api.part("/api/approvals", state="pending")
                result["approvals"] = [each for each in waiting.items if each["task_id"] == progress.task_id]
        yield _with_result(page, attempt, result)


async def _tool_pages(request: PageRequest, page: Page, attempt: Attempt, progress: ToolProgress) -> AsyncGenerator[Page, None]:
    """Yields the page while the tool works, and at the end with its result."""
    async with aclosing(attempt.changes(TOOL_SECONDS)) as changes:
        async for _ in changes:
            yield _with_result(page, attempt, await _tool_result(request, progress, attempt))


def _agent_result(progress: AgentProgress, phase: str) -> dict[str, Any]:
    state = progress.state or ("TASK_STATE_FAILED" if progress.failure else "TASK_STATE_SUBMITTED" if phase != "ended" else "unknown")
    return {
        "phase": phase,
        "state": "pending" if progress.failure and progress.failure.approval_id else state,
        "failure": progress.failure,
        "task_id": progress.task_id,
        "context_id": progress.context_id,
        "message": progress.message,
        "artifacts": list(progress.artifacts.values()),
        "waits": progress.waits,
        "approvals": [],
        "decision_id": progress.failure.decision_id if progress.failure else "",
        "left_out": progress.left_out,
        "notes": [],
        "asks": [],
        "structured": None,
    }


async def _tool_result(request: PageRequest, progress: ToolProgress, attempt: Attempt) -> dict[str, Any]:
    failure = progress.failure
    phase, state = ("ended", progress.state) if attempt.has_ended else ("running", "running")
    return {
        "phase": phase,
        "state": "unknown" if phase == "ended" and state == "running" else state,
        "failure": failure,
        "task_id": "",
        "message": progress.content,
        "artifacts": [],
        "waits": False,
        "approvals": [{"id": failure.approval_id}] if failure and failure.approval_id else [],
        "decision_id": failure.decision_id if failure and failure.decision_id else attempt.decision_id,
        "left_out": progress.left_out,
        "notes": progress.notes,
        "asks": progress.asks,
        "structured": progress.structured,
    }


def _with_result(page: Page, attempt: Attempt, result: dict[str, Any]) -> Page:
    """Returns the page with a result. Only operators and the owner of the entry see what went on behind the gateway."""
    is_whole = "owner" in page.members["entry"]
    sides = {
        "caller_side": attempt.caller_side,
        "upstream_side": attempt.upstream_side if is_whole else [],
        "left_out_exchanges": attempt.left_out if is_whole else 0,
        "is_whole": is_whole,
    }
    return Page(page.template, page.title, page.api, page.command, {**page.members, "result": {**result, **sides}})
