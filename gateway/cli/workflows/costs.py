"""cost: what calls of agents and tools have cost."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any

import typer

from gateway.calls.costs.reports.groups import CostGroup
from gateway.calls.costs.reports.spreadsheet import write_csv
from gateway.cli import output as screen
from gateway.cli.arguments.days import DAY_FORMS, parse_day
from gateway.cli.exit_codes import WrongUsage
from gateway.cli.http_client import connect

PATH = "/api/cost"
SHOWN_MAX = 1000
SOURCES = {"price": "its price", "past-calls": "{calls} past calls", "unknown": "nothing: it has no price and no past call of known cost"}
CSV_LINES_MAX = 10_000


NO_KEY = {CostGroup.WORKFLOW: "(no workflow)", CostGroup.RUN: "(no run)", CostGroup.STEP: "(no step)", CostGroup.TOOL: "(no tool)"}


def register(app: typer.Typer) -> None:
    """Adds `cost` to the commands."""
    app.command(epilog="Example: interlock cost --by agent --since 7d")(cost)


def cost(
    by: Annotated[CostGroup, typer.Option("--by", help="What costs are added up by.")] = CostGroup.DAY,
    since: Annotated[
        date | None,
        typer.Option(parser=parse_day, help=f"The first day, in UTC: {DAY_FORMS}; 29 days before the last one if left out.", metavar="DAY"),
    ] = None,
    until: Annotated[date | None, typer.Option(parser=parse_day, help="The last day; today if left out.", metavar="DAY")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="The costs of everybody, which need audit:read.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.")] = False,
    budgets: Annotated[bool, typer.Option("--budgets", help="Show what is left of each budget that counts your calls.")] = False,
    estimate: Annotated[
        str,
        typer.Option("--estimate", metavar="TARGET", help="Show what a call of an agent or SERVER.TOOL, or a run of a workflow, costs."),
    ] = "",
    as_json: screen.AsJson = False,
) -> None:
    """Show what your calls of agents and tools have cost, what is left of budgets, or what a call will probably cost."""
    if budgets and estimate:
        raise WrongUsage("--budgets and --estimate are two questions", "interlock cost --budgets")
    if budgets:
        _show_budgets(everybody, as_json)
        return
    if estimate:
        _show_estimate(estimate, as_json)
        return
    days = {name: day for name, day in (("since", since), ("until", until)) if day is not None}
    query = {"by": by.value, "everybody": str(everybody).lower(), **_texts(days)}
    items, total = _read_all(PATH, query, CSV_LINES_MAX if as_csv else SHOWN_MAX)
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


def _show_budgets(everybody: bool, as_json: bool) -> None:
    items: list[dict[str, Any]] = []
    for period in ("day", "run"):
        items += _read_all(f"{PATH}/budgets", {"period": period, "everybody": str(everybody).lower()}, SHOWN_MAX)[0]
    if as_json:
        screen.print_json({"items": items})
        return
    amounts = ("left", "budget", "spent", "reserved")
    rows = [(_scope_of(each), *("unknown" if each[name] is None else each[name] for name in amounts), each["currency"]) for each in items]
    screen.print_table(["budget of", "left", "of", "spent", "reserved", "currency"], rows, "no budget counts these calls")


def _scope_of(balance: Mapping[str, Any]) -> str:
    """The scope of a budget in words: its person or agent, its callee, and its period."""
    subject = balance["subject"].rpartition("|")[2] or balance["who"]
    kind = balance["what"].partition(":")[0]
    callee = f"{kind} {balance['callee']}" if balance["callee"] else "all calls"
    period = f"run {balance['run']}" if balance["run"] else "today"
    return f"{', '.join(filter(None, (subject, callee)))}, {period}"


def _show_estimate(target: str, as_json: bool) -> None:
    with connect() as remote, screen.show_progress("asking…"):
        found = remote.get(f"{PATH}/estimate", target=target)
    if as_json:
        screen.print_json(found)
        return
    if found["kind"] != "workflow":
        amount, most = (_amount(found[name], found["currency"]) for name in ("amount", "most"))
        screen.print_fields([("one call", amount), ("at most", most), ("known from", SOURCES[found["source"]].format(**found))])
        return
    sums, past = found["calls_cost"], found["cost"]
    screen.print_fields([
        ("past runs", "unknown" if past is None else f"{past['p50']} {past['currency']} (half of the runs), {past['p95']} (95 of 100)"),
        ("each call once", screen.format_cost(sums, "calls")),
    ])  # fmt: skip
    rows = [(each["path"], each["target"], each["amount"] or "unknown", each["most"] or "unknown") for each in found["calls"]]
    screen.print_table(["call", "target", f"cost in {sums['currency']}", "at most"], rows, "the workflow calls nothing")


def _amount(amount: str | None, currency: str) -> str:
    return "unknown" if amount is None else f"{amount} {currency}"


def _read_all(path: str, query: Mapping[str, str], most: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The items of all pages, at most `most`, and the total where the list has one."""
    items: list[dict[str, Any]] = []
    more: dict[str, str] = {}
    with connect() as remote, screen.show_progress("asking…"):
        while True:
            page = remote.get(path, **query, **more)
            items += page["items"]
            if page["next"] is None or len(items) >= most:
                return items[:most], page.get("total", {})
            more = {"cursor": page["next"]}
