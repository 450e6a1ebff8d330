"""server virtual: selections of what servers and agents offer."""

from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import WrongUsage
from gateway.cli.http_client import call_gateway, list_all, quote_segment

Name = Annotated[str, typer.Argument(help="The virtual server's name.", metavar="NAME")]
PATH = "/api/virtual-servers"
SELECTION_KINDS = ("tools", "prompts", "resources", "aliases")
app = typer.Typer(help="Virtual servers: a selection of several servers and agents, at /mcp/virtual/NAME.", no_args_is_help=True)


@app.command(epilog="Example: interlock server virtual add front-office tools:crm.search aliases:find=crm.search --search")
def add(
    name: Name,
    selected: Annotated[
        list[str], typer.Argument(help="tools:crm.search, tools:sales (an agent), prompts:crm.*, resources:crm, aliases:find=crm.search.")
    ],
    search: Annotated[bool, typer.Option("--search", help="List two tools only, which find and call all others.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Create a virtual server."""
    body: dict[str, Any] = {"name": name, "mode": "search" if search else "all"}
    for each in selected:
        kind, _, one = each.partition(":")
        alias, equals, target = one.partition("=")
        if kind not in SELECTION_KINDS or not one or (kind == "aliases") != bool(equals):
            raise WrongUsage(f"{each} selects nothing", "write tools:…, prompts:…, resources:… or aliases:NAME=…")
        if kind == "aliases":
            body.setdefault(kind, {})[alias] = target
        else:
            body.setdefault(kind, []).append(one)
    made = call_gateway("POST", PATH, body=body, progress="registering…")
    screen.print_json(made) if as_json else _print_virtual_server(made)


@app.command("list")
def list_virtual(as_json: screen.AsJson = False) -> None:
    """Show the virtual servers that you may see."""
    items = list_all(PATH)
    rows = ((each["name"], each["path"], each["mode"], each["description"]) for each in items)
    screen.print_list(items, as_json, ["name", "path", "mode", "description"], rows, "none yet: interlock server virtual add NAME tools:…")


@app.command()
def show(name: Name, as_json: screen.AsJson = False) -> None:
    """Show one virtual server."""
    found = call_gateway("GET", f"{PATH}/{quote_segment(name)}")
    screen.print_json(found) if as_json else _print_virtual_server(found)


@app.command()
def rm(name: Name, as_json: screen.AsJson = False) -> None:
    """Remove a virtual server."""
    call_gateway("DELETE", f"{PATH}/{quote_segment(name)}", progress="removing…")
    screen.print_json({"name": name, "removed": True}) if as_json else screen.print_text(f"{name} is removed")


def _print_virtual_server(server: dict[str, Any]) -> None:
    lists = [(kind, " ".join(server[kind])) for kind in SELECTION_KINDS[:3]]
    aliases = ("aliases", " ".join(f"{alias}={target}" for alias, target in server["aliases"].items()))
    screen.print_fields([("name", server["name"]), ("path", server["path"]), ("mode", server["mode"]), *lists, aliases])
