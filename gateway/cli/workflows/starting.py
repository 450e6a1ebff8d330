"""workflow run: starts a run, follows it, and prints what it returned."""

from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.arguments.completion import complete_workflow
from gateway.cli.exit_codes import CommandFailed, NothingFound
from gateway.cli.http_client import GatewayClient, connect, quote_segment
from gateway.cli.remote import tasks
from gateway.cli.remote.send import read_data
from gateway.cli.workflows.names import naming_workflow
from gateway.cli.workflows.questions import question_lines


def run(
    name: Annotated[str, typer.Argument(help="The workflow's name.", metavar="NAME", autocompletion=complete_workflow)],
    given: Annotated[str, typer.Argument(help="The input, as JSON or a JSON file.", metavar="JSON|@FILE")] = "{}",
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait; print the run's id.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Run a workflow, and print what it returned, or what it waits for."""
    body = {"input": read_data(given, "the input")}
    with connect() as remote:
        started = _start(remote, name, body)
        if detach:
            screen.print_json(started) if as_json else screen.print_text(started["id"])
            return
        screen.print_note(f"run {started['id']}")
        _follow(remote, started["id"], quiet=as_json)
        shown = remote.get(f"/api/runs/{quote_segment(started['id'])}")
        task = remote.get(f"/api/tasks/{quote_segment(started['id'])}")
    state = screen.format_state(shown["state"])
    if as_json:
        screen.print_json(started | {"state": shown["state"], "output": output_of(task), "note": shown["note"]})
    elif state == "completed":
        screen.print_json(output_of(task))
    if state in tasks.UNSUCCESSFUL_STATES:
        raise CommandFailed(f"the run is {state}", f"what happened: interlock run show {started['id']}")
    if state != "completed":
        _say_what_it_waits_for(shown)


def _start(remote: GatewayClient, name: str, body: dict[str, Any]) -> Any:
    """The new run. Raises CommandError; an input that does not fit names the command that shows the workflow's contract."""
    try:
        with naming_workflow(name), screen.show_progress("starting…"):
            return remote.request("POST", f"/api/workflows/{quote_segment(name)}/runs", body=body)
    except NothingFound:
        raise
    except CommandFailed as error:
        todo = error.todo or f"interlock workflow show {name} --document shows the input that it takes"
        raise CommandFailed(str(error), todo) from error


def output_of(task: dict[str, Any]) -> Any:
    """What a completed run returned, or None."""
    return next((part.get("data") for artifact in task["artifacts"] for part in artifact["parts"]), None)


def _follow(remote: GatewayClient, run_id: str, *, quiet: bool) -> None:
    """Shows the run's status on stderr until it ends or waits: for people, for a moment or for a task. What it waits for is told later."""
    for event in tasks.follow_task(remote, run_id, f"interlock run watch {run_id}"):
        if event["kind"] != "status":
            continue
        if event["status"].get("message") and remote.get(f"/api/runs/{quote_segment(run_id)}")["note"]:
            return
        if not quiet:
            screen.print_note(tasks.format_event(event))


def _is_about(line: str, checkpoint: dict[str, Any]) -> bool:
    """Whether a line of what a run waits for tells the question of a checkpoint, which may have several lines."""
    return line.startswith(f"{checkpoint['step']}:") or checkpoint["id"] in line or line in checkpoint["prompt"].splitlines()


def _say_what_it_waits_for(run: dict[str, Any]) -> None:
    """Each question once, with the command that answers it, and whatever else the run waits for."""
    asked = [each for each in run["checkpoints"] if each["state"] == "pending"]
    for line in run["note"].splitlines():
        if not any(_is_about(line, checkpoint) for checkpoint in asked):
            screen.print_note(line)
    for line in question_lines(run):
        screen.print_note(line)
    screen.print_note(f"it waits now, and goes on by itself afterwards: interlock run watch {run['id']}")
