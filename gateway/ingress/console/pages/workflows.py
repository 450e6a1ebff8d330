"""Workflows and their runs: the document and its picture, starting a run, and each step of a run with its input and output."""

from typing import Any

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.console.api import PagePart, api_path, gather, with_query
from gateway.ingress.console.forms import FormRefused
from gateway.ingress.console.page import Elsewhere, Page, PageRequest
from gateway.ingress.console.pages.tasks import ENDED, STATES
from gateway.ingress.console.schema_forms import fields_of, parse_json, read_value

RUN_FILTERS = ("state", "workflow", "everybody", "cursor")
RUN_STATES = ("waiting", "paused", *STATES)


async def list_workflows(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    filters = {"cursor": request.query["cursor"]} if request.query.get("cursor") else {}
    document = await request.api.get("/api/workflows", **filters)
    return Page("workflows.html", "Workflows", "/api/workflows", ("interlock", "workflow", "list"), {"workflows": document})


async def show_workflow(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    path = api_path("workflows", request.name)
    workflow = await request.api.get(path)
    runs, estimate, agent = await gather(
        request.api.part(f"{path}/runs", limit="10"),
        request.api.part(f"{path}/estimate"),
        request.api.part(api_path("agents", workflow["name"])),
    )
    schema = _input_schema(agent)
    members = {"workflow": workflow, "runs": runs, "estimate": estimate, "schema": schema}
    members["fields"] = () if request.query.get("as") == "json" else fields_of(schema)
    return Page("workflow.html", f"Workflow {workflow['name']}", path, ("interlock", "workflow", "show", workflow["name"]), members)


async def start_run(request: PageRequest) -> Elsewhere:
    """Starts a run with the input of the form. Raises ApiRefusal, and FormRefused for an input that is not JSON."""
    if "input" in request.form:
        given = parse_json(request.form["input"] or "{}", "the input")
    else:
        given = read_value(_input_schema(await request.api.part(api_path("agents", request.name))), request.form)
    started = await request.api.request("POST", f"{api_path('workflows', request.name)}/runs", {"input": given})
    return Elsewhere(f"/console/runs/{started['id']}", "started")


def _input_schema(agent: PagePart) -> Any:
    """Returns the schema of a workflow's input, which stands in the contract of the agent that it runs as."""
    contracts = agent.document["contracts"] if agent.document else {}
    return next((contract.get("input") for contract in contracts.values()), None)


async def list_runs(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    filters = {name: request.query[name] for name in RUN_FILTERS if request.query.get(name)}
    document = await request.api.get("/api/runs", **filters)
    members = {
        "runs": document,
        "filters": {name: filters.get(name, "") for name in RUN_FILTERS},
        "states": RUN_STATES,
        "may_see_everybody": request.may(READ_AUDIT),
    }
    is_live = not filters.get("everybody") and not filters.get("cursor")
    command = ("interlock", "run", "list", *(("--all",) if filters.get("everybody") else ()))
    return Page("runs.html", "Runs", with_query("/api/runs", filters), command, members, is_live=is_live)


async def show_run(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    path = api_path("runs", request.name)
    run = await request.api.get(path)
    has_ended, is_own = run["state"] in ENDED, run["owner"] == request.caller.principal.owner_key
    members: dict[str, Any] = {"run": run, "has_ended": has_ended, "is_own": is_own, "done_steps": len(run["steps"])}
    command = ("interlock", "run", "show", run["id"])
    return Page("run.html", f"Run of {run['workflow']}", path, command, members, is_live=is_own and not has_ended)


async def act_on_run(request: PageRequest) -> Elsewhere:
    """Cancels, pauses or resumes a run. Raises ApiRefusal and FormRefused."""
    acts = {"cancel": "canceled", "pause": "paused", "resume": "resumed"}
    act = request.form.get("act", "")
    if act not in acts:
        raise FormRefused("the form names no act")
    await request.api.request("POST", f"{api_path('runs', request.name)}/{act}")
    return Elsewhere(f"/console/runs/{request.name}", acts[act])
