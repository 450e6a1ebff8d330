"""db prune, db hold, db holds, db release: deletes what is old in a running gateway, and keeps what operators hold."""

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import CommandFailed, WrongUsage
from gateway.cli.http_client import call_gateway, list_all, quote_segment

PATH = "/api/retention/prune"


class HoldTarget(StrEnum):
    TENANT = "tenant"
    PERSON = "person"
    TASK = "task"


def prune(
    days: Annotated[
        int | None, typer.Option(help="Delete ended tasks that did not change for so many days, at least retention.min_days.", min=1)
    ] = None,
    tasks: Annotated[
        int | None, typer.Option(help="Keep the newest so many tasks, and all younger than retention.min_days.", min=1)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is due, and delete nothing.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Delete ended tasks that are not kept any more. What is held, younger than a day or still needed stays. Ctrl-C stops it safely."""
    terms = {name: value for name, value in (("days", days), ("tasks", tasks)) if value is not None}
    due = call_gateway("POST", PATH, body={**terms, "dry_run": True}, progress="counting…")
    if dry_run:
        _print_due(due, as_json=as_json)
        return
    if due["before"] is None and not as_json:
        screen.print_note("the settings keep everything; --days 400 names an age, see retention.days")
    done = _prune_in_steps(terms, due["tasks"])
    if as_json:
        screen.print_json(done)
    else:
        screen.print_text(f"deleted: {_describe(done)}")


def _prune_in_steps(terms: dict[str, int], due: int) -> dict[str, Any]:
    """Has the gateway delete for two seconds at a time until nothing is due. Returns what was deleted. Raises CommandFailed."""
    done: dict[str, Any] = {"tasks": 0, "records": {}}
    while True:
        step = call_gateway("POST", PATH, body=terms, progress=f"deleting… {done['tasks']} of about {due} tasks")
        done["tasks"] += step["tasks"]
        for table, count in step["records"].items():
            done["records"][table] = done["records"].get(table, 0) + count
        if step["complete"]:
            return done
        if not step["tasks"] and not step["records"]:
            raise CommandFailed(f"another process prunes now; deleted here: {_describe(done)}", "try again in some minutes")
        if sys.stderr.isatty():
            screen.print_note(f"{_describe(done)} so far")


def _print_due(due: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        screen.print_json(due)
    elif due["before"] is None:
        screen.print_text("nothing is due: the settings keep everything (retention.days, retention.tasks)")
    else:
        counts = _describe(due)
        screen.print_text(
            f"due, of what was last changed before {screen.format_time(due['before'])}: {counts}; what is needed or held stays"
        )


def _describe(counts: dict[str, Any]) -> str:
    return ", ".join(
        [screen.format_count(counts["tasks"], "task"), *(f"{count} of {table}" for table, count in counts["records"].items() if count)]
    )


def hold(
    what: Annotated[HoldTarget, typer.Argument(help="tenant, person or task.", metavar="WHAT")],
    name: Annotated[str, typer.Argument(help="The person's subject or tenant|issuer|subject, or the task's id.", metavar="NAME")] = "",
    reason: Annotated[str, typer.Option(help="Why, for operators and the audit.")] = "",
    as_json: screen.AsJson = False,
) -> None:
    """Place a legal hold: what belongs to the tenant, person or task is not deleted until the hold is released."""
    if bool(name) == (what is HoldTarget.TENANT):
        raise WrongUsage("name the person or the task, and nothing for the tenant", "interlock db hold person alice --reason 'case 17'")
    placed = call_gateway("POST", "/api/holds", body={"kind": what.value, "name": name, "reason": reason})
    if as_json:
        screen.print_json(placed)
    else:
        screen.print_text(f"{placed['id']} holds {' '.join(filter(None, (placed['kind'], placed['name'])))}")
        screen.print_note(f"to release it: interlock db release {placed['id']}")


def holds(as_json: screen.AsJson = False) -> None:
    """Show the legal holds in force."""
    items = list_all("/api/holds")
    rows = (
        (one["id"], one["kind"], one["name"], screen.format_time(one["at"]), one["by"].split("|", 2)[-1], one["reason"]) for one in items
    )
    screen.print_list(items, as_json, ["id", "kind", "name", "since", "by", "reason"], rows, "no legal holds")


def release(
    hold_id: Annotated[str, typer.Argument(help="The hold's id.", metavar="ID")],
    as_json: screen.AsJson = False,
) -> None:
    """Release a legal hold. What it kept is deleted when it is due."""
    call_gateway("DELETE", f"/api/holds/{quote_segment(hold_id)}")
    screen.print_json({"id": hold_id, "released": True}) if as_json else screen.print_text(f"{hold_id} is released")


def register(app: typer.Typer) -> None:
    for command in (prune, hold, holds, release):
        app.command()(command)
