"""connection: lists and removes the accounts that a person has connected."""

from typing import Annotated

import typer

from gateway.cli import output as screen
from gateway.cli.http_client import call_gateway, list_all, quote_segment

ConnectionId = Annotated[str, typer.Argument(help="The connection's id.", metavar="ID")]
REVOKED_TEXTS = {
    "yes": "its tokens are revoked at the service",
    "not-offered": "the service has no revocation and may still list Interlock as allowed: remove it there too",
    "failed": "the tokens could not be revoked and may still be valid: remove Interlock at the service too",
}
app = typer.Typer(help="Your accounts at agents and servers: list, rm.", no_args_is_help=True)


@app.command("list")
def list_connections(as_json: screen.AsJson = False) -> None:
    """Show the accounts that you have connected. A call that needs another one says where to connect it."""
    items = list_all("/api/connections")
    rows = (
        (i["id"], ", ".join(i["names"]) or i["resource"], i["issuer"], " ".join(i["scopes"]), screen.format_time(i["since"])) for i in items
    )
    screen.print_list(items, as_json, ["id", "for", "at", "scopes", "since"], rows, "no accounts are connected")


@app.command()
def rm(connection_id: ConnectionId, as_json: screen.AsJson = False) -> None:
    """Delete the credentials of one of your accounts. The next call that needs the account asks for consent again."""
    answer = call_gateway("DELETE", f"/api/connections/{quote_segment(connection_id)}")
    if as_json:
        screen.print_json(answer)
        return
    screen.print_text(f"{connection_id} is removed")
    screen.print_note(REVOKED_TEXTS.get(answer.get("revoked", ""), REVOKED_TEXTS["failed"]))
