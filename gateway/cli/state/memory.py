"""memory: facts that agents and people remember, and what was said in a context."""

from datetime import datetime
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.arguments.completion import complete_agent
from gateway.cli.arguments.days import parse_moment
from gateway.cli.exit_codes import WrongUsage
from gateway.cli.http_client import call_gateway, connect, decode_json, list_all, quote_segment

PATH = "/api/memory"
SCOPE_HELP = "person (your own), or workflow: with the name of a workflow."
PERSON_HELP = "Another person: the name, or tenant|issuer|subject where several have it; needs a right of operators."
Scope = Annotated[str, typer.Option("--scope", help=SCOPE_HELP, metavar="SCOPE")]
FactId = Annotated[str, typer.Argument(help="The fact's id.", metavar="ID")]
Person = Annotated[str, typer.Option("--person", help=PERSON_HELP, metavar="PERSON")]
AgentName = Annotated[str, typer.Argument(help="The agent's name.", metavar="AGENT", autocompletion=complete_agent)]
Sensitivity = Annotated[int | None, typer.Option("--sensitivity", help="From 0 (the default) to 3.", min=0, max=3)]
Expiry = Annotated[
    datetime | None,
    typer.Option("--expires", parser=parse_moment, help="When it is deleted, in UTC: a day, a time, or 30d from now.", metavar="WHEN"),
]
COLUMNS = ["id", "text", "written by", "updated", "sensitivity"]
app = typer.Typer(
    help="Facts across conversations: put, search, list, show, correct, forget, export, context, quarantine, quarantines, release.",
    no_args_is_help=True,
)


@app.command(epilog="Example: interlock memory put 'Prefers deliveries on Mondays' --expires 2030-01-01")
def put(
    text: Annotated[str, typer.Argument(help="The fact.", metavar="TEXT")],
    scope: Scope = "person",
    sensitivity: Sensitivity = None,
    expires: Expiry = None,
    as_json: screen.AsJson = False,
) -> None:
    """Remember a fact."""
    body = {"text": text, "scope": scope, "sensitivity": sensitivity, "expires": _moment(expires)}
    fact = call_gateway("POST", PATH, body={name: value for name, value in body.items() if value is not None})
    screen.print_json(fact) if as_json else screen.print_text(f"{fact['id']} is remembered")


@app.command(epilog="Example: interlock memory search delivery monday")
def search(
    words: Annotated[list[str], typer.Argument(help="Words that the facts may have.", metavar="WORD...")],
    scope: Scope = "person",
    limit: Annotated[int, typer.Option("--limit", help="How many at most.", min=1, max=200)] = 20,
    as_json: screen.AsJson = False,
) -> None:
    """Find facts by words, the best match first."""
    with connect() as remote, screen.show_progress("searching…"):
        items = remote.get(PATH, q=" ".join(words), scope=scope, limit=limit)["items"]
    _print_facts(items, as_json, "nothing that you may read has any of these words")


@app.command("list")
def list_facts(scope: Scope = "person", as_json: screen.AsJson = False) -> None:
    """Show the facts of a scope, the newest first."""
    _print_facts(list_all(PATH, scope=scope), as_json, "nothing is remembered")


@app.command()
def show(fact_id: FactId, as_json: screen.AsJson = False) -> None:
    """Show one fact with its source, and what it said before it was corrected."""
    fact = call_gateway("GET", f"{PATH}/{quote_segment(fact_id)}")
    if as_json:
        screen.print_json(fact)
        return
    names = ("id", "scope", "text", "version", "sensitivity", "created", "updated", "expires")
    screen.print_fields([*((name, fact[name]) for name in names), ("written by", _source_of(fact)), ("task", fact["source"]["task_id"])])
    rows = [(old["version"], old["text"], _source_of(old), screen.format_time(old["at"])) for old in fact["history"]]
    if rows:
        screen.print_table(["version", "text", "written by", "at"], rows)


@app.command(epilog="Example: interlock memory correct f_1a2 'Prefers deliveries on Tuesdays'")
def correct(
    fact_id: FactId,
    text: Annotated[str | None, typer.Argument(help="What is right.", metavar="TEXT")] = None,
    version: Annotated[int | None, typer.Option("--version", help="Only if this is still the version.", min=1)] = None,
    sensitivity: Sensitivity = None,
    expires: Expiry = None,
    as_json: screen.AsJson = False,
) -> None:
    """Correct a fact; its history keeps what it said before."""
    given = {"text": text, "sensitivity": sensitivity, "expires": _moment(expires)}
    body = {name: value for name, value in given.items() if value is not None}
    if not body:
        raise WrongUsage("there is nothing to correct", "give TEXT, --sensitivity or --expires")
    with connect() as remote, screen.show_progress("correcting…"):
        fact = remote.request("PATCH", f"{PATH}/{quote_segment(fact_id)}", body=body, match=str(version) if version else None)
    screen.print_json(fact) if as_json else screen.print_text(f"{fact_id} is at version {fact['version']}")


@app.command(epilog="Example: interlock memory forget f_1a2")
def forget(
    fact_id: Annotated[str, typer.Argument(help="The fact's id.", metavar="[ID]")] = "",
    everything: Annotated[bool, typer.Option("--everything", help="All that is remembered of a person.")] = False,
    person: Person = "me",
    as_json: screen.AsJson = False,
) -> None:
    """Delete a fact with its history, or all that is remembered of a person."""
    if bool(fact_id) == everything or (person != "me" and not everything):
        raise WrongUsage("it is not clear what to forget", "give the ID of a fact, or --everything [--person PERSON]")
    if everything:
        with connect() as remote, screen.show_progress("forgetting…"):
            done = remote.request("DELETE", PATH, params={"person": person})
        screen.print_json(done) if as_json else screen.print_text(f"{done['erased']} facts are forgotten")
        return
    call_gateway("DELETE", f"{PATH}/{quote_segment(fact_id)}", progress="forgetting…")
    screen.print_json({"id": fact_id, "forgotten": True}) if as_json else screen.print_text(f"{fact_id} is forgotten")


@app.command(epilog="Example: interlock memory export > memory.jsonl")
def export(person: Person = "me") -> None:
    """Print all that is remembered of a person as JSON lines, with the history of each fact."""
    with connect() as remote:
        for line in remote.stream_lines(f"{PATH}/export", person=person):
            screen.print_json_line(decode_json(line))


@app.command()
def context(
    context_id: Annotated[str, typer.Argument(help="The context's id, as tasks have it.", metavar="ID")], as_json: screen.AsJson = False
) -> None:
    """Show what was said in the tasks of a context, the newest task first."""
    items = list_all(f"{PATH}/contexts/{quote_segment(context_id)}", limit=100)
    rows = [(task["task_id"], each["speaker"], each["text"]) for task in items for each in task["texts"]]
    screen.print_list(items, as_json, ["task", "speaker", "text"], rows, "nothing was said")


@app.command(epilog="Example: interlock memory quarantine sales --reason 'it stores orders'")
def quarantine(
    agent: AgentName,
    reason: Annotated[str, typer.Option("--reason", help="Why, for other operators.", metavar="TEXT")] = "",
    as_json: screen.AsJson = False,
) -> None:
    """Hold back what an agent wrote: nobody finds it until it is released."""
    done = call_gateway("POST", f"{PATH}/quarantines", body={"agent": agent, "reason": reason})
    screen.print_json(done) if as_json else screen.print_text(f"what {agent} wrote is quarantined: {done['facts']} facts until now")


@app.command()
def quarantines(as_json: screen.AsJson = False) -> None:
    """Show the agents whose facts are held back."""
    items = list_all(f"{PATH}/quarantines")
    rows = [(each["agent"], each["facts"], each["by"], screen.format_time(each["at"]), each["reason"]) for each in items]
    screen.print_list(items, as_json, ["agent", "facts", "by", "since", "reason"], rows, "no agent's facts are held back")


@app.command()
def release(agent: AgentName, as_json: screen.AsJson = False) -> None:
    """Let the facts of a quarantined agent be found again."""
    call_gateway("DELETE", f"{PATH}/quarantines/{quote_segment(agent)}")
    screen.print_json({"agent": agent, "released": True}) if as_json else screen.print_text(f"what {agent} wrote is found again")


def _moment(day: datetime | None) -> str | None:
    return None if day is None else day.isoformat()


def _source_of(said: dict[str, Any]) -> str:
    source = said["source"]
    return source["agent"] or source.get("author", "").rpartition("|")[2] or "a person"


def _print_facts(items: list[dict[str, Any]], as_json: bool, empty: str) -> None:
    rows = [(each["id"], each["text"], _source_of(each), screen.format_time(each["updated"]), each["sensitivity"]) for each in items]
    screen.print_list(items, as_json, COLUMNS, rows, empty)
