"""workflow: adds, lists, shows, tests and removes workflows."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.arguments.completion import complete_workflow
from gateway.cli.http_client import connect, quote_segment
from gateway.cli.workflows import drafting, rehearsals, starting
from gateway.cli.workflows.names import naming_workflow

Name = Annotated[str, typer.Argument(help="The workflow's name.", metavar="NAME", autocompletion=complete_workflow)]
PATH = "/api/workflows"


class Picture(StrEnum):
    """How `workflow show` draws a workflow."""

    TREE = "tree"
    MERMAID = "mermaid"
    SVG = "svg"


app = typer.Typer(help="Workflows: documents that the gateway runs as agents.", no_args_is_help=True)
app.command(epilog="Example: interlock workflow init order")(drafting.init)
app.command(epilog='Example: interlock workflow run offer \'{"sku": "SKU-7", "quantity": 2}\'')(starting.run)


@app.command(epilog="Example: interlock workflow add offer.yaml")
def add(
    file: rehearsals.File,
    check: Annotated[bool, typer.Option("--check", help="Only say what is wrong with the document.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Add a workflow, or a new version of it, which new runs begin with."""
    body = {"document": rehearsals.read_file(file), "check": check}
    with connect() as remote, screen.show_progress("checking…"):
        added = remote.request("POST", PATH, body=body)
    if as_json:
        screen.print_json(added)
    elif check:
        screen.print_text(f"{added['name']}: nothing is wrong with {file}")
    else:
        _print_workflow(added)


@app.command("list")
def list_workflows(as_json: screen.AsJson = False) -> None:
    """Show the workflows that you may start."""
    with connect() as remote, screen.show_progress("asking…"):
        pages = list(remote.read_pages(PATH))
    items, refused = ([each for page in pages for each in page.get(name, ())] for name in ("items", "refused"))
    if as_json:
        screen.print_json({"items": items, "refused": refused})
        return
    rows = [(each["name"], each["version"][:12], each["document_version"], _fits(each), each["summary"]) for each in items]
    screen.print_table(["name", "version", "document", "fits", "summary"], rows, "none yet: interlock workflow add FILE")
    for each in refused:
        _print_refused(each)


@app.command()
def show(
    name: Name,
    picture: Annotated[Picture, typer.Option("--format", help="How to draw it.")] = Picture.TREE,
    document: Annotated[bool, typer.Option("--document", help="Print the document as its author wrote it.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Draw a workflow: reasoning, fixed and waiting steps have marks of their own."""
    with naming_workflow(name), connect() as remote, screen.show_progress("asking…"):
        found = remote.get(f"{PATH}/{quote_segment(name)}")
    if as_json:
        screen.print_json(found)
    elif "file" in found:
        _print_refused(found)
    elif document:
        screen.print_text(found["document"], newline=False)
    elif picture is Picture.MERMAID:
        screen.print_text(found["mermaid"], newline=False)
    elif picture is Picture.SVG:
        screen.print_text(_draw(found), newline=False)
    else:
        _print_workflow(found)
        screen.print_text("\n" + "\n".join(found["tree"]))


@app.command(epilog="Example: interlock workflow schema >workflow.schema.json")
def schema() -> None:
    """Print the JSON Schema of documents, for editors. It needs no gateway."""
    from gateway.workflows.dsl.editor_schema import editor_schema

    screen.print_json(editor_schema())


app.command(epilog="Example: interlock workflow test offer.yaml offer.test.yaml")(rehearsals.test)
app.command(epilog="Example: interlock workflow record t_1a20 >offer.test.yaml")(rehearsals.record)


@app.command()
def estimate(name: Name, as_json: screen.AsJson = False) -> None:
    """Show how many steps, how much time, how many tokens and what cost a run takes, from past runs."""
    with naming_workflow(name), connect() as remote, screen.show_progress("asking…"):
        found = remote.get(f"{PATH}/{quote_segment(name)}/estimate")
    if as_json:
        screen.print_json(found)
        return
    figures = [(each, _shares(found[each])) for each in ("seconds", "steps", "tokens", "cost", "unpriced_steps")]
    screen.print_fields([("past runs", f"{found['runs']}, of which {found['completed']} completed"), *figures])
    names = ("step", "target", "count", "failed")
    rows = [(*(each[name] for name in names), _shares(each["seconds"]), _shares(each["cost"])) for each in found["by_step"]]
    screen.print_table(["step", "calls", "times", "failed", "seconds", "cost"], rows, "no run has ended yet")


def _shares(shares: dict[str, Any] | None) -> str:
    if shares is None:
        return "unknown"
    half, most = (shares[name] if isinstance(shares[name], str) else f"{shares[name]:g}" for name in ("p50", "p95"))
    unit = f" {shares['currency']}" if "currency" in shares else ""
    return f"{half}{unit} (half of the runs), {most}{unit} (95 of 100)"


@app.command()
def checkpoints(name: Name, as_json: screen.AsJson = False) -> None:
    """Show how often people answered each checkpoint of the current version how, and which are relaxed."""
    with naming_workflow(name), connect() as remote, screen.show_progress("asking…"):
        items = remote.get(f"{PATH}/{quote_segment(name)}/checkpoints")["items"]
    screen.print_json({"items": items}) if as_json else _print_records(items)


@app.command(epilog="Example: interlock workflow relax offer large --every 10 --above '.total > 1000'")
def relax(
    name: Name,
    step: Annotated[str, typer.Argument(help="The checkpoint: its name, or its JSON pointer.", metavar="STEP")],
    every: Annotated[int, typer.Option(help="Ask each k-th question.", metavar="K", min=0)] = 0,
    above: Annotated[str, typer.Option(help="Ask where this jq expression holds on the step's input.", metavar="RULE")] = "",
    reason: Annotated[str, typer.Option(help="Why, for the audit.")] = "",
    never: Annotated[bool, typer.Option("--never", help="Relax it no more: ask every question.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Have only some questions of a checkpoint asked, for the current version. A new version asks all again."""
    path = f"{PATH}/{quote_segment(name)}"
    with naming_workflow(name), connect() as remote, screen.show_progress("relaxing…"):
        if never:
            remote.request("DELETE", f"{path}/relaxations?step={quote_segment(step)}")
        else:
            remote.request("POST", f"{path}/relaxations", body={"step": step, "every": every, "above": above, "reason": reason})
        items = remote.get(f"{path}/checkpoints")["items"]
    screen.print_json({"items": items}) if as_json else _print_records(items)


@app.command()
def rm(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Remove it although it has open runs, which then end.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Remove a workflow that has no open runs."""
    with naming_workflow(name), connect() as remote, screen.show_progress("removing…"):
        remote.request("DELETE", f"{PATH}/{quote_segment(name)}", params={"force": "true"} if force else None)
    screen.print_json({"name": name, "removed": True}) if as_json else screen.print_text(f"{name} is removed")


def _print_refused(refused: dict[str, Any]) -> None:
    """A document of the gateway's folder that is not published, with all reasons."""
    name = f", the workflow {refused['name']}," if refused["name"] else ""
    screen.print_text(f"{refused['file']}{name} is refused:")
    for line in screen.problem_lines(refused["problems"]):
        screen.print_text(f"  {line}")


def _draw(found: dict[str, Any]) -> str:
    """The document that a gateway answered as SVG."""
    from gateway.workflows.drawing.outline import outline_of
    from gateway.workflows.drawing.svg import svg_of
    from gateway.workflows.dsl.loading import read_document, read_source

    document = read_document(read_source(found["document"]))
    return svg_of(document.document.title or document.document.name, outline_of(document))


def _print_records(items: list[dict[str, Any]]) -> None:
    rows = [(each["step"], each["prompt"], str(each["opened"]), _words_of(each["answers"]), _rule_of(each["relaxation"])) for each in items]
    screen.print_table(["step", "question", "reached", "answers", "asked"], rows, "no run has reached a checkpoint yet")


def _words_of(answers: list[dict[str, Any]]) -> str:
    return ", ".join(f"{each['answer']} {each['count']}" for each in answers)


def _rule_of(relaxation: dict[str, Any] | None) -> str:
    if relaxation is None:
        return "always"
    every = f"each {relaxation['every']}th" if relaxation["every"] else ""
    return " and ".join(filter(None, (every, f"where {relaxation['above']}" if relaxation["above"] else "")))


def _print_workflow(found: dict[str, Any]) -> None:
    names = ("name", "version", "document_version", "title", "summary", "status")
    versions = ("versions", len(found["versions"]) if "versions" in found else "")
    fields = [*((name, found[name]) for name in names), ("fits", _fits(found)), ("may call", " ".join(found["ceiling"])), versions]
    if schedule := found.get("schedule"):
        fields += [("runs as", schedule["run_as"]), ("next run", screen.format_time(schedule["next_at"]) if schedule["next_at"] else "")]
    screen.print_fields(fields)
    for line in screen.problem_lines(found.get("problems", ())):
        screen.print_note(f"no longer fits: {line}")
    if refused := found.get("refused"):
        screen.print_note("this is an earlier version; the newest one is not published")
        _print_refused(refused)


def _fits(found: dict[str, Any]) -> str:
    """Whether a workflow starts new runs."""
    return "yes" if found.get("fits", True) else "no, it starts no runs"
