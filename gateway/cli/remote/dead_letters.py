"""deadletter: the notifications that never arrived."""

from typing import Annotated

import typer

from gateway.cli import output as screen
from gateway.cli.http_client import connect, quoted

LetterId = Annotated[str, typer.Argument(help="The dead letter's id.", metavar="ID")]
app = typer.Typer(help="Push notifications that never arrived: list, retry.", no_args_is_help=True)


@app.command("list")
def list_letters(as_json: screen.AsJson = False) -> None:
    """Show the notifications that were given up, the newest first."""
    with connect() as remote, screen.progress("asking…"):
        items = remote.every("/api/deadletters")
    if as_json:
        screen.data({"items": items})
        return
    rows = [(i["id"], i["target"], i["agent"], i["task_id"], i["attempts"], screen.moment(i["updated"]), i["reason"]) for i in items]
    screen.table(["id", "target", "agent", "task", "attempts", "given up", "reason"], rows, "no dead letters")


@app.command()
def retry(letter_id: LetterId, as_json: screen.AsJson = False) -> None:
    """Send a notification again, from the first attempt."""
    with connect() as remote, screen.progress("asking…"):
        remote.request("POST", f"/api/deadletters/{quoted(letter_id)}/retry")
    screen.data({"id": letter_id, "retried": True}) if as_json else screen.say(f"{letter_id} is sent again")
