"""deadletter: lists and retries notifications and events that were not delivered, and what triggers could not start."""

from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.http_client import call_gateway, list_all, quote_segment

DeadLetterId = Annotated[str, typer.Argument(help="The dead letter's id.", metavar="ID")]
app = typer.Typer(help="What was not delivered or started: list, retry, rm.", no_args_is_help=True)


@app.command("list")
def list_letters(as_json: screen.AsJson = False) -> None:
    """Show the notifications and events that were not delivered, and what triggers could not start, the newest first."""
    items = list_all("/api/deadletters")
    rows = ((i["id"], i["kind"], i["target"], _subject_of(i), i["attempts"], screen.format_time(i["updated"]), i["reason"]) for i in items)
    screen.print_list(items, as_json, ["id", "kind", "target", "about", "attempts", "given up", "reason"], rows, "no dead letters")


def _subject_of(letter: dict[str, Any]) -> str:
    """The task of a notification with its agent, or the event with its subject."""
    if letter["kind"] == "notification":
        return f"{letter['agent']} {letter['task_id']}"
    return f"{letter['event_id']} {letter['subject']}".rstrip()


@app.command()
def retry(letter_id: DeadLetterId, as_json: screen.AsJson = False) -> None:
    """Send or start it again, beginning with the first attempt."""
    call_gateway("POST", f"/api/deadletters/{quote_segment(letter_id)}/retry")
    screen.print_json({"id": letter_id, "retried": True}) if as_json else screen.print_text(f"{letter_id} is tried again")


@app.command()
def rm(letter_id: DeadLetterId, as_json: screen.AsJson = False) -> None:
    """Delete it. It is neither sent nor started any more."""
    call_gateway("DELETE", f"/api/deadletters/{quote_segment(letter_id)}")
    screen.print_json({"id": letter_id, "removed": True}) if as_json else screen.print_text(f"{letter_id} is removed")
