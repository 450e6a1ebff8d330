"""subject: shows what is known of a subject, and which calls were refused to avoid a conflict."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.http_client import call_gateway, list_all, quote_segment

PATH = "/api/subjects"
CONFLICT_COLUMNS = ["subject", "effect", "agent", "refused", "times", "because of", "last"]
app = typer.Typer(help="Subjects that agents act on: show, conflicts.", no_args_is_help=True)


@app.command(epilog="Example: interlock subject show customer:42")
def show(
    subject: Annotated[str, typer.Argument(help="Whom agents act on, such as customer:42.", metavar="SUBJECT")],
    as_json: screen.AsJson = False,
) -> None:
    """Show what was done, is under way and planned, what holds and claims a subject, and which conflicts were refused."""
    view = call_gateway("GET", f"{PATH}/{quote_segment(subject)}")
    if as_json:
        screen.print_json(view)
        return
    screen.print_fields([("subject", view["subject"]), *((f"value {name}", value) for name, value in view["values"].items())])
    screen.print_table(["what", "name", "by", "since", "until", "note"], _rows_of(view), "nothing is known of it")
    if view["conflicts"]:
        screen.print_table(CONFLICT_COLUMNS, map(_conflict_row, view["conflicts"]))


@app.command()
def conflicts(
    everybody: Annotated[bool, typer.Option("--everybody", help="Those of all people; needs audit:read.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Show the calls that were refused because of facts about their subject, and were not made since."""
    items = list_all(PATH, conflicts="true", everybody="true" if everybody else "false")
    screen.print_list(items, as_json, CONFLICT_COLUMNS, map(_conflict_row, items), "no call was refused because of its subject")


def _rows_of(view: Mapping[str, Any]) -> Iterable[tuple[object, ...]]:
    for title, name in (("hold", "holds"), ("opt-out", "opt_outs")):
        for fact in view[name]:
            yield title, fact["name"], _person(fact, "set_by"), _time(fact["since"]), _time(fact["until"]), fact["reason"]
    for claim in view["claims"]:
        title = "claim" if claim["state"] == "held" else "cool-down"
        yield title, claim["effect"], _person(claim, "owner"), "", _time(claim["until"]), claim["purpose"]
    for each in (*view["under_way"], *view["done"]):
        yield each["state"], each["effect"], _person(each, "owner"), _time(each["at"]), "", each["purpose"]
    for each in view["planned"]:
        title = "planned" if each["certain"] else "possible"
        yield title, each["effect"], _person(each, "owner"), _time(each["at"]), "", each["purpose"]


def _person(fact: Mapping[str, Any], member: str) -> str:
    person = (fact[member] or "").split("|", 2)[-1]
    return " for ".join(filter(None, (fact["agent"], person)))


def _time(text: str | None) -> str:
    return screen.format_time(text) if text else ""


def _conflict_row(conflict: Mapping[str, Any]) -> tuple[object, ...]:
    facts = ", ".join(f"{each['kind']} {each['name']}" for each in conflict["facts"])
    names = (conflict["subject"], conflict["effect"], conflict["agent"], conflict["reason_id"], conflict["count"])
    return (*names, facts, screen.format_time(conflict["last_at"]))
