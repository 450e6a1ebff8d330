"""kill: stop an agent, a server or a person at once, see what is stopped, and lift it."""

from enum import StrEnum
from typing import Annotated

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import WrongUsage
from gateway.cli.http_client import connect


class What(StrEnum):
    AGENT = "agent"
    SERVER = "server"
    USER = "user"
    LIST = "list"


def kill(
    what: Annotated[What, typer.Argument(help="agent, server or user; `list` shows what is stopped.", metavar="WHAT")],
    name: Annotated[str, typer.Argument(help="Its name; of a person the subject, or tenant|issuer|subject.", metavar="NAME")] = "",
    reason: Annotated[str, typer.Option(help="Why, for operators and the audit.")] = "",
    lift: Annotated[bool, typer.Option("--lift", help="Let it go on instead.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Stop an agent, a server or a person at once: what runs ends within a second, what would begin is refused."""
    if what is What.LIST:
        _list(as_json)
        return
    if not name:
        raise WrongUsage(f"whom? name the {what}", f"interlock kill {what} NAME")
    body = {"kind": what.value, "name": name, **({"reason": reason} if reason else {}), **({"lift": True} if lift else {})}
    with connect() as remote, screen.progress("lifting…" if lift else "stopping…"):
        answer = remote.request("POST", "/api/kill", body=body)
    if as_json:
        screen.data(answer)
    elif lift:
        screen.say(f"{what} {answer['name']} may go on")
    else:
        screen.say(f"{what} {answer['name']} is stopped; ended here: {answer['ended']}")
        screen.note(f"to let it go on: interlock kill {what} '{answer['name']}' --lift")


def _list(as_json: bool) -> None:
    with connect() as remote, screen.progress("asking…"):
        items = remote.every("/api/kill")
    if as_json:
        screen.data({"items": items})
        return
    rows = [(one["kind"], one["name"], screen.moment(one["at"]), one["by"].split("|", 2)[-1], one["reason"]) for one in items]
    screen.table(["kind", "name", "since", "by", "reason"], rows, "nothing is stopped")


def register(app: typer.Typer) -> None:
    app.command()(kill)
