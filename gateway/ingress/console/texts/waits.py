"""What a task waits for: a person, another task, or the steps of its run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.ingress.console.texts.wording import person_name

UNDER_WAY: Final = frozenset({"submitted", "working", "input required", "auth required"})  # outcomes of a task's span
RUN_WORDS: Final = "the run, with what the workflow and its steps said"
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TaskWait:
    """One thing that a task waits for. `said` are words of `whose`, and not of the console."""

    words: str
    href: str = ""
    link: str = ""
    said: str = ""
    whose: str = ""
    needs_person: bool = True


def find_waits(task: Document, trace: Document | None, run: Document | None, approvals: Iterable[Document]) -> list[TaskWait]:
    """Returns what a task that has not ended waits for, by the documents of /api. `run`: of a task that is a run of a workflow."""
    waits = [
        TaskWait("an approval:", f"/console/approvals/{each['id']}", f"{each['action']} {each['resource']}")
        for each in approvals
        if each["task_id"] == task["id"]
    ]
    match task["state"]:
        case "TASK_STATE_AUTH_REQUIRED":
            waits.append(TaskWait(f"{person_name(task['owner'])} to sign in at a service; what it last said has the address."))
        case "TASK_STATE_INPUT_REQUIRED" if not waits:
            waits.append(TaskWait(f"an answer of {person_name(task['owner'])} to what it asks."))
    return [*waits, *_waits_of_run(run), *_waits_for_tasks(task["id"], (trace or {}).get("spans", ()))]


def _waits_of_run(run: Document | None) -> Iterable[TaskWait]:
    if run is None:
        return
    for each in run["checkpoints"]:
        if each["state"] == "pending":
            whose = f"the workflow {run['workflow']}"
            link = (f"/console/checkpoints/{each['id']}", "Answer") if each["may_answer"] else ("", "")
            yield TaskWait("a person who answers", *link, said=each["prompt"], whose=whose)
    if run["paused"]:
        yield TaskWait("a person who resumes it:", f"/console/runs/{run['id']}", "the run is paused")
    elif run["note"]:
        yield TaskWait(
            "what its steps say:", said=run["note"], whose="the run, with what the workflow and its steps said", needs_person=False
        )


def _waits_for_tasks(task_id: str, spans: Sequence[Document]) -> Iterable[TaskWait]:
    for span in spans:
        if span["kind"] == "task" and span["parent"] == task_id and span["outcome"] in UNDER_WAY:
            link = f"{span['name']} ({span['outcome']})"
            yield TaskWait("a task that it caused:", f"/console/tasks/{span['id']}", link, needs_person=False)
