"""settings: what is in force in a running gateway, and where each value came from."""

from typing import Annotated

import typer

from gateway.cli import output as screen
from gateway.cli.http_client import list_all


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(settings)


def settings(
    changed: Annotated[bool, typer.Option("--changed", help="Only those that are not by default.")] = False, as_json: screen.AsJson = False
) -> None:
    """Show what is in force in the gateway, and where each value came from: default, file or environment. No secrets."""
    items = [each for each in list_all("/api/settings") if not changed or each["source"] != "default"]
    rows = ((each["name"], _format_value(each["value"]), each["source"]) for each in items)
    screen.print_list(items, as_json, ["setting", "value", "from"], rows, "everything is by default")


def _format_value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
