"""cost: what calls of agents and tools have cost."""

from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from gateway.calls.costs.spreadsheet import write_csv
from gateway.cli import output as screen
from gateway.cli.http_client import connect

SHOWN_MAX = 1000
CSV_LINES_MAX = 10_000


class Group(StrEnum):
    PERSON = "person"
    AGENT = "agent"
    TOOL = "tool"
    WORKFLOW = "workflow"
    TENANT = "tenant"
    DAY = "day"


NO_KEY = {Group.WORKFLOW: "(no workflow)", Group.TOOL: "(no tool)"}


def register(app: typer.Typer) -> None:
    """Adds `cost` to the commands."""
    app.command(epilog="Example: interlock cost --by agent --since 2026-01-01")(cost)


def cost(
    by: Annotated[Group, typer.Option("--by", help="What costs are added up by.")] = Group.DAY,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The first day, in UTC; 29 days before the last one if left out.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The last day; today if left out.")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="The costs of everybody, which need audit:read.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Show what your calls of agents and tools have cost."""
    days = {name: day.date() for name, day in (("since", since), ("until", until)) if day is not None}
    query = {"by": by.value, "everybody": str(everybody).lower(), **_texts(days)}
    items, total = _read_all(query, CSV_LINES_MAX if as_csv else SHOWN_MAX)
    if as_csv:
        screen.print_text(write_csv(by.value, items).replace("\r\n", "\n"), newline=False)
        return
    if as_json:
        screen.print_json({"items": items, "total": total})
        return
    rows = [
        (each[by.value] or NO_KEY.get(by, ""), screen.format_cost(each, "calls"), each["input_tokens"], each["output_tokens"])
        for each in items
    ]
    screen.print_table([by.value, "cost", "input tokens", "output tokens"], rows, "no call has ended in these days")
    if items:
        screen.print_text(f"total  {screen.format_cost(total, 'calls')}")


def _texts(days: Mapping[str, date]) -> dict[str, str]:
    return {name: day.isoformat() for name, day in days.items()}


def _read_all(query: Mapping[str, str], most: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The groups of all pages, at most `most`, and the total."""
    items: list[dict[str, Any]] = []
    more: dict[str, str] = {}
    with connect() as remote, screen.show_progress("asking…"):
        while True:
            page = remote.get("/api/cost", **query, **more)
            items += page["items"]
            if page["next"] is None or len(items) >= most:
                return items[:most], page["total"]
            more = {"cursor": page["next"]}
