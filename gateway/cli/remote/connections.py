"""connection: the accounts that a person has connected."""

from typing import Annotated

import typer

from gateway.cli import output as screen
from gateway.cli.http_client import connect, quote_segment

ConnectionId = Annotated[str, typer.Argument(help="The connection's id.", metavar="ID")]
REVOKED_TEXTS = {
    "yes": "the service was told that its tokens are not used any more",
    "not-offered": "the service takes no revocations and may list Interlock as allowed still: take it away there too",
    "failed": "the service could not be told, so its tokens may be good still: take Interlock away there too",
}
app = typer.Typer(help="Your accounts that agents and servers are opened with: list, rm.", no_args_is_help=True)


@app.command("list")
def list_connections(as_json: screen.AsJson = False) -> None:
    """Show the accounts that you have connected; a call that needs another one says where to connect it."""
    with connect() as remote, screen.show_progress("asking…"):
        items = remote.list_all("/api/connections")
    if as_json:
        screen.print_json({"items": items})
        return
    rows = [
        (i["id"], ", ".join(i["names"]) or i["resource"], i["issuer"], " ".join(i["scopes"]), screen.format_time(i["since"])) for i in items
    ]
    screen.print_table(["id", "for", "at", "scopes", "since"], rows, "no accounts are connected")


@app.command()
def rm(connection_id: ConnectionId, as_json: screen.AsJson = False) -> None:
    """Have the gateway give up an account of yours; the next call that needs it asks again."""
    with connect() as remote, screen.show_progress("asking…"):
        said = remote.request("DELETE", f"/api/connections/{quote_segment(connection_id)}")
    if as_json:
        screen.print_json(said)
        return
    screen.print_text(f"{connection_id} is forgotten here")
    screen.print_note(REVOKED_TEXTS.get(said.get("revoked", ""), REVOKED_TEXTS["failed"]))
