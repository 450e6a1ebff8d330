"""trigger: shows what starts workflows, agents and tools without a person, and what an event would start."""

from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.http_client import call_gateway, connect, quote_segment
from gateway.cli.workflows.events import SOURCE, build_event

PATH = "/api/triggers"
COLUMNS = ["what", "starts by", "as", "next", "last run", "waiting", "dead", "problem"]
Workflow = Annotated[str, typer.Argument(help="The workflow.", metavar="WORKFLOW")]
app = typer.Typer(help="What schedules and events start: list, test, pause, resume.", no_args_is_help=True)


@app.command("list")
def list_triggers(as_json: screen.AsJson = False) -> None:
    """Show which schedules and events start what, when next, and the run that was started last."""
    with connect() as remote, screen.show_progress("asking…"):
        items = remote.list_all(PATH)
    if as_json:
        screen.print_json({"items": items})
        return
    rows = [
        (
            _target_of(each),
            _start_of(each),
            each["run_as"],
            screen.format_time(each["next_at"]) if each["next_at"] else "",
            *_outcome(each),
        )
        for each in items
    ]
    screen.print_table(COLUMNS, rows, "nothing starts what you may start")


@app.command(epilog="Example: interlock trigger test com.example.order.paid --data '{\"amount\": 7}'")
def test(
    kind: Annotated[str, typer.Argument(help="The event's type.", metavar="TYPE")],
    data: Annotated[str, typer.Option("--data", help="Its data, as JSON or a JSON file.", metavar="JSON|@FILE")] = "null",
    source: Annotated[str, typer.Option("--source", help="Where it comes from, a URI.", metavar="URI")] = SOURCE,
    subject: Annotated[str, typer.Option("--subject", help="What it is about.", metavar="TEXT")] = "",
    as_json: screen.AsJson = False,
) -> None:
    """Show what an event would start. Nothing is stored or started."""
    with connect() as remote, screen.show_progress("asking…"):
        items = remote.request("POST", f"{PATH}/test", body=build_event(kind, data, source=source, subject=subject))["items"]
    if as_json:
        screen.print_json({"items": items})
        return
    rows = [(_target_of(each), "yes" if each["starts"] else "no", each["reason"] or "") for each in items]
    screen.print_table(["what", "starts", "why not"], rows, "events start nothing that you may start")


@app.command()
def pause(workflow: Workflow, as_json: screen.AsJson = False) -> None:
    """Have the schedule of a workflow start nothing: moments are missed and events wait until it is resumed."""
    _set_paused(workflow, "pause", as_json)


@app.command()
def resume(workflow: Workflow, as_json: screen.AsJson = False) -> None:
    """Have the schedule of a workflow go on."""
    _set_paused(workflow, "resume", as_json)


def _set_paused(workflow: str, verb: str, as_json: bool) -> None:
    answer = call_gateway("POST", f"{PATH}/{quote_segment(workflow)}/{verb}")
    screen.print_json(answer) if as_json else screen.print_text(f"{workflow}: {'starts nothing' if answer['paused'] else 'goes on'}")


def _target_of(trigger: dict[str, Any]) -> str:
    """What is started, after the name of the trigger where the settings have it."""
    kind, target = next(((kind, trigger[kind]) for kind in ("workflow", "agent", "tool") if trigger[kind]), ("workflow", ""))
    return f"{trigger['name']}: {kind} {target}" if trigger["name"] else target


def _start_of(trigger: dict[str, Any]) -> str:
    if trigger["cron"]:
        zone = trigger["timezone"]
        return f"cron {trigger['cron']}" + (f" {zone}" if zone != "UTC" else "")
    if trigger["every_seconds"]:
        return f"every {trigger['every_seconds']:g} s"
    if trigger["after_seconds"]:
        return f"{trigger['after_seconds']:g} s after its last run"
    return f"event {', '.join(trigger['event_types'])}"


def _outcome(trigger: dict[str, Any]) -> tuple[object, ...]:
    problem = "paused" if trigger["paused"] else trigger["problem"] or ""
    return trigger["last_run"] or "", trigger["waiting"], trigger["dead"], problem
