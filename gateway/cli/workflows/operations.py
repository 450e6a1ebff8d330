"""run: pauses, resumes, signals, redrives and forks runs, and compares two of them."""

from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.arguments.completion import complete_run
from gateway.cli.http_client import connect, quote_segment
from gateway.cli.remote.send import read_data

RunId = Annotated[str, typer.Argument(help="The run's id, which is a task's.", metavar="ID", autocompletion=complete_run)]
Latest = Annotated[bool, typer.Option("--latest", help="Run with the workflow's newest version, if its finished steps are the same.")]
PATH = "/api/runs"


def register(app: typer.Typer) -> None:
    """Adds the commands to `interlock run`."""
    for command in (pause, resume, signal, redrive, fork, diff):
        app.command()(command)


def pause(run_id: RunId, as_json: screen.AsJson = False) -> None:
    """Have a run stop before its next step. Steps at work end."""
    _post(run_id, "pause", None)
    screen.print_json({"id": run_id, "paused": True}) if as_json else screen.print_text(f"{run_id} starts no further step")


def resume(run_id: RunId, as_json: screen.AsJson = False) -> None:
    """Have a run go on that is paused, or that waits until you sign in again: your roles of now count for it."""
    _post(run_id, "resume", None)
    screen.print_json({"id": run_id, "paused": False}) if as_json else screen.print_text(f"{run_id} goes on")


def signal(
    run_id: RunId,
    name: Annotated[str, typer.Argument(help="The signal that the run waits for.", metavar="NAME")],
    data: Annotated[str, typer.Argument(help="The signal's data, as JSON or a JSON file.", metavar="JSON|@FILE")] = "{}",
    as_json: screen.AsJson = False,
) -> None:
    """Give a run the signal that it waits for."""
    _post(run_id, "signal", {"name": name, "data": read_data(data, "the data")})
    screen.print_json({"id": run_id, "signal": name}) if as_json else screen.print_text(f"{run_id} has the signal {name}")


def redrive(
    run_id: RunId,
    latest: Latest = False,
    repeat_unknown: Annotated[bool, typer.Option("--repeat-unknown", help="Repeat steps that may have had their effect too.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Start a run that goes on from the step at which another one failed."""
    _print_started(_post(run_id, "redrive", {"latest": latest, "repeat_unknown": repeat_unknown}), as_json)


def fork(
    run_id: RunId,
    step: Annotated[str, typer.Option("--from", help="The name or JSON pointer of the step.", metavar="STEP")],
    given: Annotated[str | None, typer.Option("--input", help="The step's input instead of its own.", metavar="JSON|@FILE")] = None,
    latest: Latest = False,
    as_json: screen.AsJson = False,
) -> None:
    """Start a run that goes on from a step of another one, whose earlier steps it does not repeat."""
    changed = {} if given is None else {"input": read_data(given, "--input")}
    _print_started(_post(run_id, "fork", {"step": step, "latest": latest, **changed}), as_json)


def diff(
    run_id: RunId,
    other: Annotated[str, typer.Argument(help="The other run's id.", metavar="OTHER", autocompletion=complete_run)],
    as_json: screen.AsJson = False,
) -> None:
    """Show the steps in which two runs differ."""
    with connect() as remote, screen.show_progress("asking…"):
        first, second = (_steps_of(remote.get(f"{PATH}/{quote_segment(each)}")) for each in (run_id, other))
    names = [name for name in dict.fromkeys([*first, *second]) if first.get(name) != second.get(name)]
    found: list[dict[str, Any]] = [{"step": name, "first": first.get(name), "second": second.get(name)} for name in names]
    if as_json:
        screen.print_json({"items": found})
        return
    rows = [(each["step"], _brief(each["first"]), _brief(each["second"])) for each in found]
    screen.print_table(["step", run_id, other], rows, "their steps came to the same")


def _steps_of(run: dict[str, Any]) -> dict[str, Any]:
    """What each step of a run came to, by its pointer and its round."""
    return {f"{each['step']} {each['key']}": {name: each[name] for name in ("value", "fault") if name in each} for each in run["steps"]}


def _brief(outcome: dict[str, Any] | None) -> str:
    if outcome is None:
        return "did not run"
    if "fault" in outcome:
        return f"failed: {outcome['fault']['detail']}"
    return screen.format_value(outcome["value"])


def _post(run_id: str, verb: str, body: Any) -> Any:
    with connect() as remote, screen.show_progress("asking…"):
        return remote.request("POST", f"{PATH}/{quote_segment(run_id)}/{verb}", body=body)


def _print_started(run: dict[str, Any], as_json: bool) -> None:
    screen.print_json(run) if as_json else screen.print_text(run["id"])
