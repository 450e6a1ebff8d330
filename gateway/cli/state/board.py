"""state: values that people and agents share, by key, with their versions, history and changes."""

import shlex
from typing import Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import WrongUsage
from gateway.cli.http_client import call_gateway, connect, decode_json, quote_segment
from gateway.cli.remote.send import read_data
from gateway.cli.remote.tasks import follow_events

PATH = "/api/state"
HELD_PATH = "/api/state-held"
KEY_SAFE = "/@"
ANY_VERSION = "*"
Key = Annotated[str, typer.Argument(help="Such as customer/42/status.", metavar="KEY")]
HeldId = Annotated[str, typer.Argument(help="As `state held` shows it.", metavar="ID")]
Version = Annotated[str, typer.Option("--version", help="The version that is replaced, or * for any.", metavar="N|*")]
app = typer.Typer(
    help="Values that people and agents share: get, set, patch, rm, list, watch, history, held, accept, drop.", no_args_is_help=True
)


@app.command(epilog="Example: interlock state get customer/42/status")
def get(key: Key, as_json: screen.AsJson = False) -> None:
    """Show a value, its version, and who set it."""
    value = call_gateway("GET", _path_of(key))
    if as_json:
        screen.print_json(value)
        return
    screen.print_fields([("value", screen.format_value(value["value"])), *_fields_of(value)])


@app.command("set", epilog="Example: interlock state set customer/42/status open --version 3")
def set_value(
    key: Key,
    value: Annotated[str, typer.Argument(help="JSON, a JSON file, or a plain text.", metavar="VALUE|@FILE")],
    version: Version = "",
    ttl: Annotated[int, typer.Option("--ttl", help="Seconds after which the value is gone.", min=0)] = 0,
    sensitivity: Annotated[int, typer.Option("--sensitivity", help="Of the value, at least.", min=0, max=3)] = 0,
    as_json: screen.AsJson = False,
) -> None:
    """Set a value. Where there is one already, name the version that you have read."""
    params: dict[str, str | int] = {**({"ttl": ttl} if ttl else {}), **({"sensitivity": sensitivity} if sensitivity else {})}
    _send("PUT", key, _value_of(value), version=version, params=params, as_json=as_json)


@app.command(epilog='Example: interlock state patch customer/42 \'{"tier": "gold", "note": null}\' --version 3')
def patch(
    key: Key,
    merge_patch: Annotated[str, typer.Argument(help="A JSON Merge Patch (RFC 7396); null removes a member.", metavar="JSON|@FILE")],
    version: Version = "",
    as_json: screen.AsJson = False,
) -> None:
    """Change members of a value that is an object."""
    _send("PATCH", key, read_data(merge_patch, "JSON"), version=version, params={}, as_json=as_json)


@app.command(epilog="Example: interlock state rm customer/42/status --version 3")
def rm(key: Key, version: Version = "", as_json: screen.AsJson = False) -> None:
    """Delete a value. Its history stays."""
    with connect() as remote, screen.show_progress("asking…"):
        gone = remote.request("DELETE", _path_of(key), more_headers=_precondition(version))
    if as_json:
        screen.print_json(gone)
    else:
        screen.print_text(f"{key} is deleted, as version {gone['version']}")


@app.command("list", epilog="Example: interlock state list customer/42 --values")
def list_values(
    prefix: Annotated[str, typer.Argument(help="Such as customer/42; all keys without it.", metavar="PREFIX")] = "",
    values: Annotated[bool, typer.Option("--values", help="Read the values too.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Show the keys that you may read."""
    with connect() as remote, screen.show_progress("asking…"):
        items = remote.list_all(PATH, prefix=prefix, values="true" if values else "false")
    rows = ((each["key"], each["version"], *_shown_value(each, values), _author_of(each), _time_of(each["updated"])) for each in items)
    columns = ["key", "version", *(["value"] if values else []), "set by", "at"]
    screen.print_list(items, as_json, columns, rows, "there is no value that you may read")


@app.command(epilog="Example: interlock state watch customer/42 --json")
def watch(
    prefix: Annotated[str, typer.Argument(help="Such as customer/42; all keys without it.", metavar="PREFIX")] = "",
    after: Annotated[str, typer.Option("--after", help="Begin after this change, 0 for the oldest.", metavar="ID")] = "",
    as_json: screen.AsJson = False,
) -> None:
    """Show changes as they are made; with --json one per line."""
    with connect() as remote:
        command = f"interlock state watch {shlex.quote(prefix)}" if prefix else "interlock state watch"
        path = f"{PATH}?prefix={quote(prefix, safe=KEY_SAFE)}"
        for sent in follow_events(remote, path, after, again=lambda last: f"{command} --after {shlex.quote(last)}"):
            change = decode_json(sent.data)
            if change["kind"] == "begin":
                continue
            if as_json:
                screen.print_json_line(change)
            else:
                screen.print_text(_line_of(change))


@app.command(epilog="Example: interlock state history customer/42/status")
def history(key: Key, as_json: screen.AsJson = False) -> None:
    """Show the changes of a key, the newest first: who set which value, for whom, and in which task."""
    with connect() as remote, screen.show_progress("asking…"):
        items = remote.list_all(_path_of(key), history="")
    rows = (
        (each["version"], each["kind"], *_shown_value(each, True), _author_of(each), _time_of(each["at"]), _task_of(each)) for each in items
    )
    screen.print_list(items, as_json, ["version", "change", "value", "set by", "at", "task"], rows, "the key has no history")


@app.command()
def held(as_json: screen.AsJson = False) -> None:
    """Show values that miss the schema of their key and wait for a decision."""
    with connect() as remote, screen.show_progress("asking…"):
        items = remote.list_all(HELD_PATH)
    rows = ((each["id"], each["key"], each["problem"], screen.format_value(each["value"]), _author_of(each)) for each in items)
    screen.print_list(items, as_json, ["id", "key", "problem", "value", "set by"], rows, "no value is held back")


@app.command(epilog="Example: interlock state accept hv_…")
def accept(held_id: HeldId, as_json: screen.AsJson = False) -> None:
    """Accept a value that is held back, as it is."""
    _decide(held_id, "accept", as_json)


@app.command(epilog="Example: interlock state drop hv_…")
def drop(held_id: HeldId, as_json: screen.AsJson = False) -> None:
    """Drop a value that is held back."""
    _decide(held_id, "drop", as_json)


def _decide(held_id: str, decision: str, as_json: bool) -> None:
    decided = call_gateway("POST", f"{HELD_PATH}/{quote_segment(held_id)}/decision", body={"decision": decision})
    if as_json:
        screen.print_json(decided)
    else:
        screen.print_text(f"{held_id} is {decided['state']}")


def _send(method: str, key: str, value: Any, *, version: str, params: dict[str, str | int], as_json: bool) -> None:
    with connect() as remote, screen.show_progress("asking…"):
        stored = remote.send_value(method, _path_of(key), value, params, _precondition(version))
    if as_json:
        screen.print_json(stored)
    elif "held" in stored:
        asked = f"; people are asked: interlock approval show {stored['held']['approval']}" if "approval" in stored["held"] else ""
        screen.print_text(f"{key} is unchanged: the value {stored['held']['problem']}; it is held back as {stored['held']['id']}{asked}")
    elif "version" in stored:
        screen.print_text(f"{key} is at version {stored['version']}")
    else:
        screen.print_text(f"{key} is set at the server {stored['backed_by']['server']}")


def _path_of(key: str) -> str:
    if not key:
        raise WrongUsage("a key is expected", "for example: interlock state get customer/42/status")
    return f"{PATH}/{quote(key, safe=KEY_SAFE)}"


def _precondition(version: str) -> dict[str, str]:
    """If-Match of a version, or If-None-Match for version 0. Raises WrongUsage."""
    if version in ("", ANY_VERSION):
        return {"If-Match": ANY_VERSION} if version else {}
    if not (version.isascii() and version.isdigit()):
        raise WrongUsage(f"{version!r} is no version", "--version takes the number that `state get` shows, 0 for no value yet, or *")
    return {"If-Match": f'"{version}"'} if int(version) else {"If-None-Match": ANY_VERSION}


def _value_of(text: str) -> Any:
    """JSON, the JSON of a file, or a text as it is. What begins like JSON must be JSON."""
    try:
        return read_data(text, "VALUE")
    except WrongUsage:
        if text.startswith(("{", "[", '"', "@")):
            raise
        return text


def _fields_of(value: dict[str, Any]) -> list[tuple[str, object]]:
    if "backed_by" in value:
        return [("held by", f"{value['backed_by']['server']}.{value['backed_by']['tool']}")]
    times = [("set at", _time_of(value["updated"])), ("expires", _time_of(value["expires"]) if value["expires"] else "")]
    return [
        ("version", value["version"]),
        ("set by", _author_of(value)),
        ("task", _task_of(value)),
        *times,
        ("sensitivity", value["sensitivity"]),
    ]


def _line_of(change: dict[str, Any]) -> str:
    if change["kind"] == "gap":
        return "changes before the next one were deleted for their age: interlock state list shows the values of now"
    value = screen.format_value(change["value"]) if "value" in change else ""
    return f"{_time_of(change['at'])}  {change['key']}  {change['version']}  {change['kind']}  {value}  {_author_of(change)}".rstrip()


def _shown_value(item: dict[str, Any], is_shown: bool) -> tuple[str, ...]:
    return (screen.format_value(item["value"]) if "value" in item else "",) if is_shown else ()


def _author_of(item: dict[str, Any]) -> str:
    """The agent that wrote something, and the person for whom."""
    source = item["source"]
    if source is None:
        return ""
    person = source["principal"].split("|", 2)[-1]
    return f"{source['agent']} for {person}" if source["agent"] else person


def _task_of(item: dict[str, Any]) -> str:
    return (item["source"] or {}).get("task_id") or ""


def _time_of(text: str) -> str:
    return screen.format_time(text)
