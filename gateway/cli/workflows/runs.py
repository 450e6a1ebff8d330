"""run: starts, lists, shows, watches, cancels runs of workflows, and answers their checkpoints."""

from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.http_client import connect, quote_segment
from gateway.cli.remote import tasks
from gateway.cli.remote.send import read_data
from gateway.cli.workflows import operations

RunId = Annotated[str, typer.Argument(help="The run's id, which is a task's.", metavar="ID")]
PATH = "/api/runs"
app = typer.Typer(help="Runs of workflows: start, list, show, watch, operate, answer.", no_args_is_help=True)
operations.register(app)


@app.command(epilog='Example: interlock run start offer --input \'{"sku": "7"}\' --wait')
def start(
    workflow: Annotated[str, typer.Argument(help="The workflow's name.", metavar="NAME")],
    given: Annotated[str, typer.Option("--input", help="The input, as JSON or a JSON file.", metavar="JSON|@FILE")] = "{}",
    wait: Annotated[bool, typer.Option("--wait", help="Show its events until it ends or waits for you.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Start a run."""
    body = {"workflow": workflow, "input": read_data(given, "--input")}
    with connect() as remote, screen.show_progress("starting…"):
        run = remote.request("POST", PATH, body=body)
    if wait:
        tasks.watch(run["id"], as_json)
        return
    screen.print_json(run) if as_json else screen.print_text(run["id"])


@app.command("list")
def list_runs(
    workflow: Annotated[str, typer.Option(help="Runs of this workflow only.", metavar="NAME")] = "",
    limit: Annotated[int, typer.Option(help="How many at most, the newest first.", min=1, max=1000)] = 50,
    as_json: screen.AsJson = False,
) -> None:
    """Show your runs."""
    with connect() as remote, screen.show_progress("asking…"):
        items = remote.list_all(PATH, limit, **({"workflow": workflow} if workflow else {}))
    if as_json:
        screen.print_json({"items": items})
        return
    rows = [(each["id"], screen.format_state(each["state"]), each["workflow"], screen.format_time(each["updated"])) for each in items]
    screen.print_table(["id", "state", "workflow", "updated"], rows, "no runs yet: interlock run start NAME")


@app.command()
def show(run_id: RunId, as_json: screen.AsJson = False) -> None:
    """Show where a run stands: its steps, and what it waits for."""
    with connect() as remote, screen.show_progress("asking…"):
        run = remote.get(f"{PATH}/{quote_segment(run_id)}")
    if as_json:
        screen.print_json(run)
        return
    wakes = screen.format_time(run["wake_at"]) if run["wake_at"] else ""
    names = [(name, run[name]) for name in ("id", "workflow", "version")]
    screen.print_fields([("state", screen.format_state(run["state"])), *names, ("waits for", run["note"]), ("goes on", wakes)])
    rows = [(each["step"], _outcome(each), screen.format_time(each["ended"]), each["task_id"]) for each in run["steps"]]
    screen.print_table(["step", "outcome", "ended", "task"], rows, "no step has ended yet")
    for each in run["checkpoints"]:
        if each["state"] == "pending":
            screen.print_note(f"{each['prompt']}  interlock run answer {each['id']} JSON")


@app.command()
def watch(run_id: RunId, as_json: screen.AsJson = False) -> None:
    """Show each event of a run until it ends or waits for you; with --json one per line."""
    tasks.watch(run_id, as_json)


@app.command()
def cancel(run_id: RunId, as_json: screen.AsJson = False) -> None:
    """Stop a run and the tasks of its steps."""
    with connect() as remote, screen.show_progress("cancelling…"):
        remote.request("POST", f"{PATH}/{quote_segment(run_id)}/cancel")
    screen.print_json({"id": run_id, "canceled": True}) if as_json else screen.print_text(f"{run_id} is canceled")


@app.command()
def checkpoints(as_json: screen.AsJson = False) -> None:
    """Show the questions of runs that you may answer."""
    with connect() as remote, screen.show_progress("asking…"):
        items = remote.list_all("/api/checkpoints")
    if as_json:
        screen.print_json({"items": items})
        return
    rows = [(each["id"], each["kind"], each["workflow"], screen.format_time(each["expires"]), each["prompt"]) for each in items]
    screen.print_table(["id", "kind", "workflow", "expires", "question"], rows, "no run waits for you")


@app.command(epilog="Example: interlock run answer cp_1f2e '{\"approved\": true}'")
def answer(
    checkpoint_id: Annotated[str, typer.Argument(help="The checkpoint's id.", metavar="CHECKPOINT")],
    value: Annotated[str, typer.Argument(help="The answer, as JSON or a JSON file.", metavar="JSON|@FILE")],
    as_json: screen.AsJson = False,
) -> None:
    """Answer a question of a run."""
    body: dict[str, Any] = {"value": read_data(value, "the answer")}
    with connect() as remote, screen.show_progress("answering…"):
        answered = remote.request("POST", f"/api/checkpoints/{quote_segment(checkpoint_id)}/answer", body=body)
    screen.print_json(answered) if as_json else screen.print_text(f"{checkpoint_id} is answered; run {answered['run']} goes on")


def _outcome(step: dict[str, Any]) -> str:
    return f"failed: {step['fault']['detail']}" if "fault" in step else "done"
