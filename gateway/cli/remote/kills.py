"""kill: stops an agent, a server or a person at once, lists active kills, and lifts them."""

from enum import StrEnum
from typing import Annotated

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import WrongUsage
from gateway.cli.http_client import call_gateway, list_all


class KillKind(StrEnum):
    AGENT = "agent"
    SERVER = "server"
    USER = "user"
    LIST = "list"


def kill(
    what: Annotated[KillKind, typer.Argument(help="agent, server or user; `list` shows what is stopped.", metavar="WHAT")],
    name: Annotated[str, typer.Argument(help="Its name; of a person the subject, or tenant|issuer|subject.", metavar="NAME")] = "",
    reason: Annotated[str, typer.Option(help="Why, for operators and the audit.")] = "",
    lift: Annotated[bool, typer.Option("--lift", help="Lift the kill instead.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Stop an agent, a server or a person at once: running calls end within a second, new ones are refused."""
    if what is KillKind.LIST:
        _print_kills(as_json)
        return
    if not name:
        raise WrongUsage(f"a name is missing: name the {what}", f"interlock kill {what} NAME")
    body = {"kind": what.value, "name": name, **({"reason": reason} if reason else {}), **({"lift": True} if lift else {})}
    answer = call_gateway("POST", "/api/kill", body=body, progress="lifting…" if lift else "stopping…")
    if as_json:
        screen.print_json(answer)
    elif lift:
        screen.print_text(f"{what} {answer['name']} is not stopped any more")
    else:
        screen.print_text(f"{what} {answer['name']} is stopped; ended here: {answer['ended']}")
        screen.print_note(f"to lift it: interlock kill {what} '{answer['name']}' --lift")


def _print_kills(as_json: bool) -> None:
    items = list_all("/api/kill")
    rows = ((one["kind"], one["name"], screen.format_time(one["at"]), one["by"].split("|", 2)[-1], one["reason"]) for one in items)
    screen.print_list(items, as_json, ["kind", "name", "since", "by", "reason"], rows, "nothing is stopped")


def register(app: typer.Typer) -> None:
    app.command()(kill)
