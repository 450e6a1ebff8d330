"""server: registers, lists, changes and approves MCP servers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from gateway.cli import output as screen
from gateway.cli.arguments.completion import complete_server
from gateway.cli.exit_codes import WrongUsage
from gateway.cli.http_client import call_gateway, connect, list_all, quote_segment
from gateway.cli.remote import virtual_servers as virtual
from gateway.cli.remote.health import describe_health, probe_fields
from gateway.cli.remote.permissions import CEILING_HELP, parse_permissions

Name = Annotated[str, typer.Argument(help="The server's name.", metavar="NAME", autocompletion=complete_server)]
FIELDS = (
    "name",
    "status",
    "killed",
    "url",
    "era",
    "tools",
    "prompts",
    "resources",
    "templates",
    "waiting",
    "sensitivity",
    "clearance",
    "owner",
    "created",
    "updated",
)
DEFINITION_KINDS = ("tools", "prompts", "resources", "templates", "instructions")
app = typer.Typer(
    help="Servers of tools: add, list, show, refresh, register-anew, set, effects, approve, rm, virtual.", no_args_is_help=True
)
app.add_typer(virtual.app, name="virtual")


@app.command(epilog="Example: interlock server add inventory http://127.0.0.1:7001/mcp")
def add(
    name: Name,
    url: Annotated[str, typer.Argument(help="The URL of its MCP endpoint, or of its OpenAPI document (also a FILE).", metavar="URL")],
    openapi: Annotated[bool, typer.Option("--openapi", help="URL is an OpenAPI document, whatever its name.")] = False,
    base: Annotated[str, typer.Option(help="The URL of the API, if it is not the one in its document.", metavar="URL")] = "",
    as_json: screen.AsJson = False,
) -> None:
    """Register an MCP server, or an HTTP API by its OpenAPI document. One that is not registered by an operator waits for approval."""
    body = _registration_body(url, openapi, base)
    server = call_gateway("POST", "/api/servers", body={"name": name, **body}, progress=f"asking {url} for its tools…")
    if as_json:
        screen.print_json(server)
        return
    screen.print_fields(_server_fields(server))
    if server.get("status") == "pending":
        screen.print_note(f"an operator has to approve it: interlock server approve {name}")


@app.command("list")
def list_servers(
    failing: Annotated[bool, typer.Option("--failing", help="Those that can't be called now, or failed their last check.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Show the servers that you may see."""
    query: dict[str, Any] = {"failing": "true"} if failing else {}
    items = list_all("/api/servers", **query)
    rows = ((s["name"], s["status"], describe_health(s), s.get("era"), _count_if_list(s.get("tools")), s.get("url")) for s in items)
    screen.print_list(
        items,
        as_json,
        ["name", "status", "health", "era", "tools", "url"],
        rows,
        "nothing found" if failing else "no servers yet: interlock server add NAME URL",
    )


@app.command()
def show(name: Name, as_json: screen.AsJson = False) -> None:
    """Show one server."""
    server = call_gateway("GET", f"/api/servers/{quote_segment(name)}")
    screen.print_json(server) if as_json else _print_server(server)


@app.command()
def refresh(name: Name, as_json: screen.AsJson = False) -> None:
    """Ask a server for its tools again now."""
    server = call_gateway("POST", f"/api/servers/{quote_segment(name)}/refresh", progress="asking for its tools…")
    screen.print_json(server) if as_json else _print_server(server)


@app.command("register-anew")
def register_anew(name: Name, as_json: screen.AsJson = False) -> None:
    """Delete the gateway's client registration for a server, so that it registers again; people consent again."""
    call_gateway("DELETE", f"/api/servers/{quote_segment(name)}/registration")
    screen.print_json({"name": name, "registration": None}) if as_json else screen.print_text(
        f"the next consent for {name} registers the gateway again"
    )


@app.command("set")
def set_labels(
    name: Name,
    ceiling: Annotated[list[str] | None, typer.Option(help=CEILING_HELP, metavar="PERMISSION")] = None,
    sensitivity: Annotated[int | None, typer.Option(help="The sensitivity of its results, 0 to 3.")] = None,
    clearance: Annotated[int | None, typer.Option(help="The highest sensitivity that a calling transaction may have seen, 0 to 3.")] = None,
    tool_sensitivity: Annotated[
        list[str] | None, typer.Option(help="The sensitivity of one tool; may be repeated. Replaces all.", metavar="TOOL=N")
    ] = None,
    model_free: Annotated[
        list[str] | None,
        typer.Option(help="A tool behind which no model works; may be repeated. Replaces all; '' for none.", metavar="TOOL"),
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(help="What a call costs, or a call of one tool; may be repeated. Replaces all; '' for none.", metavar="[TOOL=]AMOUNT"),
    ] = None,
    as_json: screen.AsJson = False,
) -> None:
    """Set a server's ceiling, the sensitivity of its results, its clearance, its model-free tools, and its prices."""
    single = None if tool_sensitivity is None else dict(_parse_label(each) for each in tool_sensitivity)
    members: dict[str, Any] = {"ceiling": parse_permissions(ceiling), "sensitivity": sensitivity, "clearance": clearance}
    members["sensitivities"] = single
    members["model_free"] = None if model_free is None else [tool for tool in model_free if tool]
    members["prices"] = None if price is None else dict(_parse_price(each) for each in price if each)
    body = {key: value for key, value in members.items() if value is not None}
    if not body:
        options = "--ceiling, --sensitivity, --clearance, --tool-sensitivity, --model-free or --price"
        raise WrongUsage("there is nothing to set", f"give {options}")
    server = call_gateway("PATCH", f"/api/servers/{quote_segment(name)}", body=body, progress="changing…")
    screen.print_json(server) if as_json else _print_server(server)
    for tool in sorted(
        {*(members["prices"] or ()), *(single or ()), *(members["model_free"] or ())} - {"*", *server.get("tool_names", ())}
    ):
        screen.print_problem(
            f"warning: {name} has no tool {tool} now", f"interlock server show {name} --json lists its tools as tool_names"
        )


def _server_fields(server: Mapping[str, Any]) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = [(field, _count_if_list(server.get(field))) for field in FIELDS]
    pairs.append(("left out", (server.get("left_out") or {}).get("count") or ""))
    pairs.append(("at most", " ".join(server.get("ceiling") or []) or "nothing"))
    single = " ".join(f"{tool}={label}" for tool, label in (server.get("sensitivities") or {}).items())
    pairs.append(("model-free", " ".join(server.get("model_free") or [])))
    pairs.append(("price of a call", " ".join(f"{tool}={price}" for tool, price in (server.get("prices") or {}).items())))
    return [*pairs, ("of single tools", f"sensitivity {single}" if single else ""), *probe_fields(server)]


def _parse_price(text: str) -> tuple[str, str]:
    """The tool, `*` for every other one, and the amount, which the gateway checks."""
    tool, _, amount = text.rpartition("=")
    return tool or "*", amount


def _parse_label(text: str) -> tuple[str, int]:
    tool, _, label = text.rpartition("=")
    if not tool or not label.isdecimal():
        raise WrongUsage(f"{text} is not TOOL=N", "such as find_customer=2")
    return tool, int(label)


@app.command(epilog="Example: interlock server effects mail --confirm send_email")
def effects(
    name: Name,
    confirm: Annotated[
        list[str] | None, typer.Option(help="Declare what is suggested for this tool; may be repeated.", metavar="TOOL")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Declare what this JSON file says, by tool. Replaces all.", metavar="FILE")
    ] = None,
    as_json: screen.AsJson = False,
) -> None:
    """Show the effects of the tools of a server: what is declared, and what is suggested from their names and schemas."""
    path = f"/api/servers/{quote_segment(name)}"
    found = call_gateway("GET", f"{path}/effects")
    if file is not None or confirm:
        declared = _read_effects(file) if file is not None else found["declared"]
        if unknown := [tool for tool in confirm or () if tool not in found["suggested"]]:
            raise WrongUsage(f"nothing is suggested for {unknown[0]}", f"interlock server effects {name}")
        declared |= {tool: found["suggested"][tool] for tool in confirm or ()}
        call_gateway("PATCH", path, body={"effects": declared}, progress="declaring…")
        found = call_gateway("GET", f"{path}/effects")
    if as_json:
        screen.print_json(found)
        return
    rows = [(tool, state, each["effect"], each["subject"]) for state in ("declared", "suggested") for tool, each in found[state].items()]
    screen.print_table(["tool", "", "effect", "on"], rows, "nothing is declared or suggested")


def _read_effects(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WrongUsage(
            f"{file}: {error}", '{"TOOL": {"subject": "customer:{arguments.customer_id}", "effect": "outbound-email"}}'
        ) from error
    if not isinstance(found, dict):
        raise WrongUsage(f"{file} has no JSON object", "interlock server effects --help")
    return found


@app.command()
def rm(name: Name, as_json: screen.AsJson = False) -> None:
    """Remove a server."""
    call_gateway("DELETE", f"/api/servers/{quote_segment(name)}", progress="removing…")
    screen.print_json({"name": name, "removed": True}) if as_json else screen.print_text(f"{name} is removed")


@app.command()
def approve(
    name: Name,
    tool: Annotated[list[str] | None, typer.Option(help="Approve only this tool; may be repeated.", metavar="NAME")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Approve only this: prompts:NAME, resources:URI, templates:TEXT, instructions:instructions. May be repeated.",
            metavar="KIND:NAME",
        ),
    ] = None,
    seen: Annotated[
        str | None,
        typer.Option(help="Approve only this version: `updated` of `interlock server show` (default: the current one).", metavar="TIME"),
    ] = None,
    as_json: screen.AsJson = False,
) -> None:
    """Approve a server and its changed or added definitions, which are shown first."""
    body: dict[str, list[str]] = {"tools": tool} if tool else {}
    for each in only or ():
        kind, _, one = each.partition(":")
        if kind not in DEFINITION_KINDS or not one:
            raise WrongUsage(f"{each} is not KIND:NAME", f"KIND is one of {', '.join(DEFINITION_KINDS)}")
        body.setdefault(kind, []).append(one)
    with connect() as remote:
        server = remote.approve(f"/api/servers/{quote_segment(name)}", _print_changes, seen, body or None)
    screen.print_json(server) if as_json else screen.print_text(f"{name} is {server['status']}{_waiting_suffix(server)}")


def _registration_body(url: str, openapi: bool, base: str) -> dict[str, Any]:
    """Returns the body of a registration. A URL whose name ends like a document's is an OpenAPI document."""
    where = {"url": base} if base else {}
    if url.startswith(("http://", "https://")):
        described = openapi or base or urlsplit(url).path.endswith((".json", ".yaml", ".yml"))
        return {"openapi": url, **where} if described else {"url": url}
    if not Path(url).is_file():
        raise WrongUsage(
            f"{url} is neither an http URL nor a file", "configure a server that is a command in interlock.yaml, under servers"
        )
    from adapters.contract import UpstreamFault
    from adapters.openapi.text import parse_document

    try:
        return {"openapi": parse_document(Path(url).read_bytes()), **where}
    except UpstreamFault as fault:
        raise WrongUsage(f"{url}: {fault.public}", "an OpenAPI document is JSON or YAML without aliases") from None


def _print_server(server: Mapping[str, Any]) -> None:
    """Prints a server, and its definitions that wait for an operator, with their changes."""
    screen.print_fields(_server_fields(server))
    for line in server.get("stderr") or ():
        screen.print_note(f"stderr: {line}")
    left_out = server.get("left_out") or {"count": 0, "first": []}
    if left_out["count"]:
        screen.print_table(["left out", "why"], [(one["name"], one["why"]) for one in left_out["first"]])
        screen.print_note(f"{left_out['count']} of its definitions can't be offered to clients")
    waiting = [one for one in server.get("withheld", ()) if one["state"] != "gone"]
    if not waiting:
        return
    rows = [(one["kind"], one["name"], one["state"], "; ".join(one["warnings"])) for one in waiting]
    screen.print_table(["withheld", "name", "state", "warnings"], rows)
    drift = [
        (change["path"], screen.format_value(change["before"]), screen.format_value(change["after"])) for change in server.get("drift", ())
    ]
    screen.print_table(["changed", "before", "after"], drift)
    screen.print_note(f"to approve: interlock server approve {server['name']} --seen {server['updated']}; one tool only: --tool NAME")


def _print_changes(server: Mapping[str, Any]) -> None:
    """Prints what is being approved, on stderr."""
    screen.print_note(f"url: {server.get('url')}")
    screen.print_note(f"tools: {', '.join(server.get('tool_names') or []) or 'none'}")
    for one in server.get("withheld") or []:
        screen.print_note(f"withheld: {one['kind']} {one['name']}, {one['state']} {'; '.join(one['warnings'])}".rstrip())
    for change in server.get("drift") or []:
        screen.print_note(f"changed: {change['path']}: {screen.format_change(change['before'], change['after'])}")


def _waiting_suffix(server: Mapping[str, Any]) -> str:
    count = server.get("waiting", 0)
    return f"; {count} definitions still wait" if count else ""


def _count_if_list(value: object) -> object:
    return len(value) if isinstance(value, list) else value
