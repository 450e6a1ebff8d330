"""event: sends events to workflows, and shows those that were sent."""

import shlex
from typing import Annotated, Any
from urllib.parse import quote
from uuid import uuid4

import typer

from gateway.cli import output as screen
from gateway.cli.http_client import connect, decode_json, list_all
from gateway.cli.remote.send import read_data
from gateway.cli.remote.tasks import follow_events

SOURCE = "urn:cli"
PATH = "/api/events"
app = typer.Typer(help="Events (CloudEvents 1.0) for workflows: send, tail, sources.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Events (CloudEvents 1.0) for workflows: send, tail, sources."""


@app.command(epilog="Example: interlock event send com.example.order.paid --data '{\"order\": 7}' --subject order/7")
def send(
    kind: Annotated[str, typer.Argument(help="The event's type.", metavar="TYPE")],
    data: Annotated[str, typer.Option("--data", help="Its data, as JSON or a JSON file.", metavar="JSON|@FILE")] = "null",
    source: Annotated[str, typer.Option("--source", help="Where it comes from, a URI.", metavar="URI")] = SOURCE,
    event_id: Annotated[str, typer.Option("--id", help="An event with the same source and id counts once.", metavar="ID")] = "",
    subject: Annotated[str, typer.Option("--subject", help="What it is about.", metavar="TEXT")] = "",
    as_json: screen.AsJson = False,
) -> None:
    """Send an event to the workflows that listen for it, or that it starts."""
    event = build_event(kind, data, source=source, event_id=event_id, subject=subject)
    with connect() as remote, screen.show_progress("sending…"):
        answer = remote.request("POST", PATH, body=event)
    if as_json:
        screen.print_json(answer | {"id": event["id"]})
    else:
        screen.print_text(f"{event['id']} was sent before" if answer["repeated"] else f"{event['id']} is sent")
        for dropped in answer.get("not_started", ()):
            screen.print_text(f"it starts no run of {dropped['workflow']}, since too many of its runs wait: interlock trigger list")


def build_event(kind: str, data: str, *, source: str = SOURCE, event_id: str = "", subject: str = "") -> dict[str, Any]:
    """A CloudEvent. `data` is JSON, or @FILE."""
    event: dict[str, Any] = {"specversion": "1.0", "id": event_id or str(uuid4()), "source": source, "type": kind}
    event |= {"subject": subject} if subject else {}
    if (given := read_data(data, "--data")) is not None:
        event |= {"datacontenttype": "application/json", "data": given}
    return event


@app.command(epilog="Example: interlock event tail --type com.example.order.paid --last 10")
def tail(
    kind: Annotated[str, typer.Option("--type", help="Events of this type only.", metavar="TYPE")] = "",
    last: Annotated[int, typer.Option("--last", help="Begin with so many of the events before.", min=0, max=200)] = 10,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on with the events that come.")] = True,
    as_json: screen.AsJson = False,
) -> None:
    """Show events that you may receive, as they come; with --json one per line."""
    params: dict[str, str | int] = {"limit": max(1, last), **({"type": kind} if kind else {})}
    with connect() as remote:
        with screen.show_progress("asking…"):
            known = remote.request("GET", PATH, params=params)["items"]
        for item in reversed(known[:last]):
            _print_event(item, as_json)
        if not known and not as_json:
            screen.print_note("no event is stored that you may receive; to receive one needs state:read:events/TYPE")
        if follow:
            path = f"{PATH}?type={quote(kind, safe='')}" if kind else PATH
            again = "interlock event tail" + (f" --type {shlex.quote(kind)}" if kind else "")
            for sent in follow_events(remote, path, known[0]["id"] if known else "0", again=lambda _: again):
                _print_event(decode_json(sent.data), as_json)


@app.command()
def sources(as_json: screen.AsJson = False) -> None:
    """List the systems that send events as signed webhooks."""
    items = list_all(f"{PATH}/sources")
    rows = ((each["name"], " ".join(each["types"]), each["subject"] or "", each["path"]) for each in items)
    screen.print_list(items, as_json, ["name", "types", "subject", "path"], rows, "no source sends events that you may receive")


def _print_event(item: dict[str, Any], as_json: bool) -> None:
    if as_json:
        screen.print_json_line(item)
        return
    event = item["event"]
    data = screen.format_value(event["data"]) if "data" in event else ""
    screen.print_text(f"{screen.format_time(item['at'])}  {event['type']}  {event['source']}  {event['id']}  {data}".rstrip())
