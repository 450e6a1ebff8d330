"""Tasks: the list with its filters, and the page that answers every question about one of them."""

from gateway.audit.decisions import READ_AUDIT
from gateway.calls.turns.cancellation import CANCEL_TASK
from gateway.ingress.console.api import api_path, gather, with_query
from gateway.ingress.console.page import Elsewhere, Page, PageRequest
from gateway.ingress.console.texts.waits import find_waits

STATES = (
    "TASK_STATE_SUBMITTED",
    "TASK_STATE_WORKING",
    "TASK_STATE_INPUT_REQUIRED",
    "TASK_STATE_AUTH_REQUIRED",
    "TASK_STATE_COMPLETED",
    "TASK_STATE_FAILED",
    "TASK_STATE_CANCELED",
    "TASK_STATE_REJECTED",
)
ENDED = frozenset(STATES[4:])
FILTERS = ("state", "agent", "context_id", "everybody", "cursor")


async def list_tasks(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    filters = {name: request.query[name] for name in FILTERS if request.query.get(name)}
    document = await request.api.get("/api/tasks", **filters)
    command = ["interlock", "task", "list", *(["--all"] if filters.get("everybody") else [])]
    members = {
        "tasks": document,
        "filters": {name: filters.get(name, "") for name in FILTERS},
        "states": STATES,
        "may_see_everybody": request.may(READ_AUDIT),
    }
    is_live = not filters.get("everybody") and not filters.get("cursor")  # each look at the tasks of all people is audited
    return Page("tasks.html", "Tasks", with_query("/api/tasks", filters), tuple(command), members, is_live=is_live)


async def show_task(request: PageRequest) -> Page:
    """Raises ApiRefusal."""
    path = api_path("tasks", request.name)
    task = await request.api.get(path)
    trace, run, approvals = await gather(
        request.api.part(f"{path}/trace"),
        request.api.part(api_path("runs", request.name)),
        request.api.part("/api/approvals", state="pending"),
    )
    is_own, has_ended = task["owner"] == request.caller.principal.owner_key, task["state"] in ENDED
    members = {
        "task": task,
        "trace": trace,
        "is_run": run.document is not None,
        "waits": [] if has_ended else find_waits(task, trace.document, run.document, approvals.items),
        "has_ended": has_ended,
        "is_own": is_own,
        "may_cancel": not has_ended and (is_own or request.may(CANCEL_TASK)),
    }
    command = ("interlock", "task", "show", task["id"])
    return Page("task.html", f"Task of {task['agent']}", path, command, members, is_live=is_own and not has_ended)


async def cancel_task(request: PageRequest) -> Elsewhere:
    """Asks the agent of a task to stop. Raises ApiRefusal."""
    task = await request.api.request("POST", f"{api_path('tasks', request.name)}/cancel")
    return Elsewhere(f"/console/tasks/{task['id']}", "canceled")
