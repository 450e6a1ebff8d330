"""task and trace: what was asked, how it stands, and what it caused."""

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import Failed, NotReachable
from gateway.cli.http_client import Remote, Sent, connect, decoded, quoted
from gateway.cli.remote.send import request

TaskId = Annotated[str, typer.Argument(help="The task's id.", metavar="ID")]
ENDED = ("completed", "failed", "canceled", "rejected")
ATTEMPTS = 5  # at a stream that breaks before it says anything new
PAUSE = 0.2  # seconds before the second, doubled each time
app = typer.Typer(help="Your tasks: list, show, watch, cancel.", no_args_is_help=True)


@app.command("list")
def list_tasks(
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.", min=1, max=1000)] = 50,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody's, for those who may read the audit.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Show your tasks."""
    with connect() as remote, screen.progress("asking…"):
        items = remote.every("/api/tasks", limit, **({"everybody": "true"} if everybody else {}))
    if as_json:
        screen.data({"items": items})
        return
    rows = [_row(task, everybody) for task in items]
    columns = ["id", "state", "agent", "updated", "caused by", *(["whose"] if everybody else [])]
    screen.table(columns, rows, "no tasks yet: interlock send AGENT TEXT")


@app.command()
def show(task_id: TaskId, as_json: screen.AsJson = False) -> None:
    """Show one task with its messages and artifacts."""
    with connect() as remote, screen.progress("asking…"):
        task = remote.get(f"/api/tasks/{quoted(task_id)}")
    if as_json:
        screen.data(task)
        return
    names = ("id", "agent", "context_id", "parent_id", "decision_id", "grant_id")
    times = [(name, screen.moment(task[name])) for name in ("created", "updated")]
    screen.fields([("state", screen.state(task["state"])), *((name, task[name]) for name in names), *times])
    for message in task["history"]:
        who = "you" if message.get("role") == "ROLE_USER" else task["agent"]
        screen.say(f"\n{who}: {_words(message)}")
    for artifact in task["artifacts"]:
        screen.say(f"\n{artifact.get('name') or artifact.get('artifactId')}: {_words(artifact)}")


@app.command()
def cancel(task_id: TaskId, as_json: screen.AsJson = False) -> None:
    """Ask the agent to stop."""
    with connect() as remote, screen.progress("cancelling…"):
        agent = remote.get(f"/api/tasks/{quoted(task_id)}")["agent"]
        task = request(remote, agent, "CancelTask", {"id": task_id})
    screen.data(task) if as_json else screen.say(f"{task_id} is {screen.state(task['status']['state'])}")


@app.command()
def watch(task_id: TaskId, as_json: screen.AsJson = False) -> None:
    """Show each event of a task until it ends or waits for you; as JSON, one on a line."""
    with connect() as remote:
        state = ""
        for sent in _events(remote, f"/api/tasks/{quoted(task_id)}/events"):
            event = decoded(sent.data)
            state = screen.state(event["status"]["state"]) if event["kind"] == "status" else state
            screen.data_line(event) if as_json else screen.say(_line(event))
    if state in ENDED[1:]:
        raise Failed(f"the task is {state}", f"what happened: interlock trace {task_id}")


def trace(
    task_id: Annotated[str, typer.Argument(help="The task's id.", metavar="TASK_ID")],
    as_json: screen.AsJson = False,
) -> None:
    """Draw what a task caused: every hop, every tool, every refusal, against time."""
    with connect() as remote, screen.progress("asking…"):
        found = remote.get(f"/api/tasks/{quoted(task_id)}/trace")
    if as_json:
        screen.data(found)
        return
    from gateway.cli.remote.waterfall import waterfall

    terminal = screen.console()
    terminal.print(waterfall(found["spans"], terminal.width))
    refused = [span for span in found["spans"] if span["outcome"] == "refused"]
    if refused:
        screen.note(f"why it was refused: interlock why {refused[-1]['decision_id']}")


def _events(remote: Remote, path: str) -> Iterator[Sent]:
    """All events once each: a stream that breaks is taken up behind the last event seen."""
    after, failures = "", 0
    while True:
        try:
            for sent in remote.events(path, after):
                after, failures = sent.id or after, 0
                yield sent
        except NotReachable:
            failures += 1
            if failures == ATTEMPTS or not after:
                raise
            time.sleep(PAUSE * 2**failures)
        else:
            return


def _line(event: dict[str, Any]) -> str:
    at, kind = screen.moment(event["at"]), event["kind"]
    if kind == "status":
        said = _words(event["status"].get("message") or {})
        return f"{at}  {screen.state(event['status']['state'])}{': ' if said else ''}{said}"
    return f"{at}  {kind}: {_words(event[kind])}" if kind in event else f"{at}  {kind}"


def _row(task: dict[str, Any], everybody: bool) -> tuple[object, ...]:
    row = (task["id"], screen.state(task["state"]), task["agent"], screen.moment(task["updated"]), task["parent_id"])
    return (*row, task["owner"].split("|", 2)[-1]) if everybody else row


def _words(holder: dict[str, Any]) -> str:
    return "\n".join(part.get("text") or f"[{part.get('mediaType') or 'data'}]" for part in holder.get("parts") or [])


def register(whole: typer.Typer) -> None:
    whole.command()(trace)
