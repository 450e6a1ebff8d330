"""event: sends events to workflows."""

from typing import Annotated, Any
from uuid import uuid4

import typer

from gateway.cli import output as screen
from gateway.cli.http_client import connect
from gateway.cli.remote.send import read_data

SOURCE = "urn:cli"
app = typer.Typer(help="Events (CloudEvents 1.0) for workflows: send.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Events (CloudEvents 1.0) for workflows: send."""


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
    event: dict[str, Any] = {"specversion": "1.0", "id": event_id or str(uuid4()), "source": source, "type": kind}
    event |= {"subject": subject} if subject else {}
    if (given := read_data(data, "--data")) is not None:
        event |= {"datacontenttype": "application/json", "data": given}
    with connect() as remote, screen.show_progress("sending…"):
        answer = remote.request("POST", "/api/events", body=event)
    if as_json:
        screen.print_json(answer | {"id": event["id"]})
    else:
        screen.print_text(f"{event['id']} was sent before" if answer["repeated"] else f"{event['id']} is sent")
