"""run: lists, shows, watches, cancels runs of workflows, and answers their checkpoints."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.arguments.completion import complete_run
from gateway.cli.exit_codes import CommandFailed, WrongUsage
from gateway.cli.http_client import connect, decode_json, quote_segment
from gateway.cli.remote import tasks
from gateway.cli.remote.send import read_data
from gateway.cli.workflows import operations
from gateway.cli.workflows.names import similar_workflow
from gateway.cli.workflows.plans import plan_lines
from gateway.cli.workflows.questions import question_lines
from gateway.cli.workflows.starting import output_of
from gateway.cli.workflows.tree import name_of, tree_lines, with_undoing

RunId = Annotated[str, typer.Argument(help="The run's id, which is a task's.", metavar="ID", autocompletion=complete_run)]
PATH = "/api/runs"
RESTS = ("paused", "waiting")  # states of runs beside those of tasks
STATES = ("submitted", "working", "input-required", "auth-required", "completed", "failed", "canceled", "rejected", *RESTS)
app = typer.Typer(
    help="Runs of workflows: list, show, watch, cancel, checkpoints, answer, pause, resume, signal, redrive, fork, diff.",
    no_args_is_help=True,
)
operations.register(app)


@app.command("list")
def list_runs(
    workflow: Annotated[str, typer.Option(help="Runs of this workflow only.", metavar="NAME")] = "",
    state: Annotated[str, typer.Option(help=f"Runs in this state only: {', '.join(STATES)}.", metavar="STATE")] = "",
    all_owners: Annotated[bool, typer.Option("--all", help="Runs of all people; needs the permission to read the audit.")] = False,
    limit: Annotated[int, typer.Option(help="How many at most, the newest first.", min=1, max=1000)] = 50,
    as_json: screen.AsJson = False,
) -> None:
    """Show your runs."""
    filters = {"workflow": workflow, "state": _parse_state(state), "everybody": "true" if all_owners else ""}
    with connect() as remote, screen.show_progress("asking…"):
        items = remote.list_all(PATH, limit, **{name: value for name, value in filters.items() if value})
    if as_json:
        screen.print_json({"items": items})
        return
    columns = ["id", "state", "workflow", "updated", *(["whose"] if all_owners else []), "why"]
    rows = [
        (each["id"], screen.format_state(each["state"]), each["workflow"], screen.format_time(each["updated"]))
        + ((each["owner"],) if all_owners else ())
        + (_why(each),)
        for each in items
    ]
    if workflow and not items and (meant := similar_workflow(workflow)):
        screen.print_note(f"no run of {workflow} is yours.{meant}")
    screen.print_table(columns, rows, "no such runs" if any(filters.values()) else "no runs yet: interlock workflow run NAME")


def _parse_state(text: str) -> str:
    """A state as /api names it. Raises WrongUsage."""
    name = text.lower().replace("_", "-").replace(" ", "-")
    if name and name not in STATES:
        raise WrongUsage(f"--state is {text}, which is none of {', '.join(STATES)}")
    return name if name in RESTS else screen.parse_state(name)


def _why(run: dict[str, Any]) -> str:
    """Why a run stands where it does, in one line: its fault, its pause or what it waits for."""
    if fault := run["fault"]:
        return f"{fault.get('title') or fault['type']} at {fault.get('instance') or '/'}"
    return "paused" if run["paused"] else "; ".join(run["note"].split("\n"))


@app.command()
def show(
    run_id: RunId,
    steps: Annotated[bool, typer.Option("--steps", help="What each step received and returned, and who ruled on it.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Show where a run stands and why: its steps, what it waits for, and what it has left open."""
    with connect() as remote, screen.show_progress("asking…"):
        run = remote.get(f"{PATH}/{quote_segment(run_id)}")
        task = remote.get(f"/api/tasks/{quote_segment(run_id)}")
    if as_json:
        screen.print_json(run | {"output": output_of(task)})
        return
    wakes = screen.format_time(run["wake_at"]) if run["wake_at"] else ""
    names = [(name, run[name]) for name in ("id", "workflow", "version")]
    origin = f"{run['origin']['kind']} of {run['origin']['run']} from {run['origin']['step']}" if run["origin"] else ""
    more = [
        ("waits for", run["note"] if run.get("paused") else ""),
        ("goes on", wakes),
        ("origin", origin),
        ("continued by", " ".join(run["continued_by"])),
    ]
    screen.print_fields([("state", screen.format_state(run["state"])), *names, *more])
    screen.print_text(f"\n{run['summary']}\n")
    if cost := screen.format_cost(run["cost"]):
        screen.print_text(f"cost      {cost}")
    for each in run["open_effects"]:
        undo = f"; undo it by {each['function']}" if each["function"] else ""
        screen.print_note(f"left open: {name_of(each['step']) or each['target']} ({each['why']}){undo}")
    screen.print_text(f"input     {json.dumps(run['input'], ensure_ascii=False)}")
    if screen.format_state(run["state"]) == "completed":
        screen.print_text(f"output    {json.dumps(output_of(task), ensure_ascii=False)}")
    if steps:
        _print_trail(run["steps"])
        return
    rows = [
        (name_of(each["step"]), ", ".join(filter(None, (_outcome(each), undoing))), screen.format_time(each["ended"]), each["task_id"])
        for each, undoing in with_undoing(run["steps"])
    ]
    screen.print_table(["step", "outcome", "ended", "task"], rows, "no step has ended yet")
    for each in run["plans"]:
        screen.print_text(f"plan {each['number']} of {each['step']}  {each['digest'][:12]}")
        for line in plan_lines(each["plan"]["do"]):
            screen.print_text(line)
    for line in question_lines(run):
        screen.print_note(line)


@app.command()
def watch(run_id: RunId, as_json: screen.AsJson = False) -> None:
    """Show a run as a tree while it goes on, until it ends or waits for you; with --json one event per line."""
    path, state = f"{PATH}/{quote_segment(run_id)}", ""
    with connect() as remote, live_lines(as_json) as show_lines:
        again, is_over = f"interlock run watch {run_id}", lambda: screen.format_state(state) in tasks.ENDED_STATES
        for sent in tasks.follow_events(remote, f"{path}/events", again=lambda _: again, is_over=is_over):
            event = decode_json(sent.data)
            state = event.get("state", state)
            if as_json:
                screen.print_json_line(event)
            may_wait = screen.format_state(state) in tasks.WAITING_STATES
            run = remote.get(path) if may_wait or not as_json else None
            if run is not None and not as_json:
                show_lines(tree_lines(run))
            if may_wait and run is not None and run["state"] == state:
                break
    if screen.format_state(state) in tasks.UNSUCCESSFUL_STATES:
        raise CommandFailed(f"the run is {screen.format_state(state)}", f"why, and what it did: interlock run show {run_id} --steps")


@app.command()
def cancel(run_id: RunId, as_json: screen.AsJson = False) -> None:
    """Stop a run and the tasks of its steps."""
    with connect() as remote, screen.show_progress("cancelling…"):
        remote.request("POST", f"{PATH}/{quote_segment(run_id)}/cancel")
    screen.print_json({"id": run_id, "canceled": True}) if as_json else screen.print_text(f"{run_id} is canceled")


@app.command()
def checkpoints(
    watch: Annotated[bool, typer.Option("--watch", help="Show what becomes of questions, until you stop it.")] = False,
    since: Annotated[int, typer.Option(help="With --watch: events after this number.", metavar="N", min=0)] = 0,
    as_json: screen.AsJson = False,
) -> None:
    """Show the open questions of runs that you see, and which of them you may answer."""
    if watch:
        _watch_checkpoints(since, as_json)
        return
    with connect() as remote, screen.show_progress("asking…"):
        items = remote.list_all("/api/checkpoints")
    if as_json:
        screen.print_json({"items": items})
        return
    rows = [
        (
            *(each[name] for name in ("id", "kind", "workflow")),
            screen.format_time(each["expires"]),
            "yes" if each["may_answer"] else "no",
            each["prompt"],
        )
        for each in items
    ]
    screen.print_table(["id", "kind", "workflow", "expires", "you may answer", "question"], rows, "no run waits for you")
    for each in items:
        if "subject" in each:
            screen.print_text(f"{each['id']} is about this plan  {each['subject']['digest'][:12]}")
            for line in plan_lines(each["subject"]["plan"]["do"]):
                screen.print_text(line)


def _watch_checkpoints(since: int, as_json: bool) -> None:
    with connect() as remote:
        command = "interlock run checkpoints --watch --since"
        for sent in tasks.follow_events(remote, "/api/checkpoints/events", str(since), again=lambda last: f"{command} {last}"):
            event = decode_json(sent.data)
            asked = event["checkpoint"]
            words = f"{screen.format_time(event['at'])}  {event['kind'].partition('.')[2]}  {asked['id']}  {asked['prompt']}"
            screen.print_json_line(event) if as_json else screen.print_text(words)


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
    run = answered["run"]
    after = f"is paused, and goes on with: interlock run resume {run}" if answered["paused"] else "goes on"
    screen.print_json(answered) if as_json else screen.print_text(f"{checkpoint_id} is answered; run {run} {after}")


@contextmanager
def live_lines(is_quiet: bool) -> Iterator[Callable[[list[str]], None]]:
    """Yields what shows lines: in place on a terminal, which FORCE_COLOR does not make; elsewhere the lines that were not shown before."""
    if is_quiet or not screen.console().file.isatty():
        shown: set[str] = set()

        def print_new(lines: list[str]) -> None:
            for line in lines:
                if line not in shown:
                    shown.add(line)
                    screen.print_text(line)

        yield print_new
        return
    from rich.live import Live
    from rich.text import Text

    with Live(console=screen.console(), auto_refresh=False) as live:
        yield lambda lines: live.update(Text("\n".join(map(screen.printable, lines))), refresh=True)


def _print_trail(steps: list[dict[str, Any]]) -> None:
    """Each step with what it received and returned."""
    for step in steps:
        again = f", attempt {step['attempt']}" if step["attempt"] > 1 else ""
        screen.print_text(f"{step['step']}  {step['target']}  {step['seconds']:g} s{again}")
        usage = screen.format_value(step["usage"]) if step["usage"] else "unknown"
        names = [
            ("ruling", step["decision_id"]),
            ("task", step["task_id"]),
            ("usage", usage),
            ("cost", screen.format_cost(step["cost"], "calls")),
        ]
        screen.print_fields([("received", _held(step, "input")), ("returned", _held(step, "value")), *names])


def _held(step: dict[str, Any], name: str) -> str:
    if reference := step.get(f"{name}_reference"):
        return f"{reference['size']} bytes, sha256 {reference['digest']}"
    if name == "value" and "fault" in step:
        return f"failed: {step['fault']['detail']}"
    return screen.format_value(step[name]) if name in step else ""


def _outcome(step: Mapping[str, Any]) -> str:
    return f"failed: {step['fault']['detail']}" if "fault" in step else "done"
