"""session: lists and ends the sign-ins of a person, by client."""

from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import NothingFound, WrongUsage
from gateway.cli.http_client import call_gateway, list_all, quote_segment

app = typer.Typer(help="Your sign-ins, by client: list, rm.", no_args_is_help=True)


@app.command("list")
def list_sessions(as_json: screen.AsJson = False) -> None:
    """Show the clients and browsers that you are signed in with, and until when."""
    items = list_all("/api/sessions")
    rows = (
        (
            f"{i['id']}{' (this one)' if i['current'] else ''}",
            i["client"],
            i["client_id"],
            i["resource"],
            " ".join(i["scope"]),
            screen.format_time(i["until"]),
        )
        for i in items
    )
    screen.print_list(items, as_json, ["id", "client", "client id", "for", "scope", "until"], rows, "you are not signed in anywhere")


@app.command()
def rm(
    session_id: Annotated[str, typer.Argument(help="The session's id.", metavar="ID")] = "",
    client: Annotated[str, typer.Option("--client", help="End all sessions of the client with this client id.")] = "",
    as_json: screen.AsJson = False,
) -> None:
    """End a session, or all sessions of a client. Its tokens are refused within a second, in every process."""
    if bool(session_id) == bool(client):
        raise WrongUsage("name a session, or --client and a client id", "interlock session list shows both")
    ended = [session_id] if session_id else _sessions_of(client)
    answers: list[Any] = [call_gateway("DELETE", f"/api/sessions/{quote_segment(each)}") for each in ended]
    if as_json:
        screen.print_json({"items": answers})
        return
    for each in ended:
        screen.print_text(f"{each} has ended")


def _sessions_of(client: str) -> list[str]:
    """The ids of the sessions of a client, the caller's own last. Raises NothingFound."""
    items = [each for each in list_all("/api/sessions") if each["client_id"] == client]
    if not items:
        raise NothingFound(f"you are not signed in with a client {client}", "interlock session list shows the clients")
    return [each["id"] for each in sorted(items, key=lambda each: bool(each["current"]))]
