"""deadletter: lists and retries push notifications that were not delivered."""

from typing import Annotated

import typer

from gateway.cli import output as screen
from gateway.cli.http_client import call_gateway, list_all, quote_segment

DeadLetterId = Annotated[str, typer.Argument(help="The dead letter's id.", metavar="ID")]
app = typer.Typer(help="Push notifications that were not delivered: list, retry.", no_args_is_help=True)


@app.command("list")
def list_letters(as_json: screen.AsJson = False) -> None:
    """Show the notifications that were not delivered, the newest first."""
    items = list_all("/api/deadletters")
    rows = ((i["id"], i["target"], i["agent"], i["task_id"], i["attempts"], screen.format_time(i["updated"]), i["reason"]) for i in items)
    screen.print_list(items, as_json, ["id", "target", "agent", "task", "attempts", "given up", "reason"], rows, "no dead letters")


@app.command()
def retry(letter_id: DeadLetterId, as_json: screen.AsJson = False) -> None:
    """Send a notification again, starting with the first attempt."""
    call_gateway("POST", f"/api/deadletters/{quote_segment(letter_id)}/retry")
    screen.print_json({"id": letter_id, "retried": True}) if as_json else screen.print_text(f"{letter_id} is sent again")
