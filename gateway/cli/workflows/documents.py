"""workflow: adds, lists, shows, tests and removes workflows."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import CommandFailed, WrongUsage
from gateway.cli.http_client import connect, quote_segment
from gateway.cli.remote.send import read_data

if TYPE_CHECKING:
    from gateway.workflows.rehearsal.rehearse import Outcome

Name = Annotated[str, typer.Argument(help="The workflow's name.", metavar="NAME")]
File = Annotated[Path, typer.Argument(help="The document, YAML or JSON.", metavar="FILE")]
PATH = "/api/workflows"


class Picture(StrEnum):
    """How `workflow show` draws a workflow."""

    TREE = "tree"
    MERMAID = "mermaid"
    SVG = "svg"


app = typer.Typer(help="Workflows: documents that the gateway runs as agents.", no_args_is_help=True)


@app.command(epilog="Example: interlock workflow add offer.yaml")
def add(
    file: File,
    check: Annotated[bool, typer.Option("--check", help="Only say what is wrong with the document.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Add a workflow, or a new version of it, which new runs begin with."""
    body = {"document": _read(file), "check": check}
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
        items = remote.list_all(PATH)
    if as_json:
        screen.print_json({"items": items})
        return
    rows = [(each["name"], each["version"][:12], each["document_version"], _fits(each), each["summary"]) for each in items]
    screen.print_table(["name", "version", "document", "fits", "summary"], rows, "none yet: interlock workflow add FILE")


@app.command()
def show(
    name: Name,
    picture: Annotated[Picture, typer.Option("--format", help="How to draw it.")] = Picture.TREE,
    document: Annotated[bool, typer.Option("--document", help="Print the document as its author wrote it.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Draw a workflow: reasoning, fixed and waiting steps have marks of their own."""
    with connect() as remote, screen.show_progress("asking…"):
        found = remote.get(f"{PATH}/{quote_segment(name)}")
    if as_json:
        screen.print_json(found)
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


@app.command(epilog="Example: interlock workflow test offer.yaml offer.test.yaml")
def test(
    file: File,
    cases: Annotated[Path | None, typer.Argument(help="The rehearsal (default: beside FILE, ending .test.yaml).", metavar="CASES")] = None,
    as_json: screen.AsJson = False,
) -> None:
    """Run a workflow against given answers, in virtual time; nothing leaves this machine."""
    given = cases or file.with_suffix(".test.yaml")
    outcomes = _rehearse(file, given)
    failed = [outcome for outcome in outcomes if outcome.problems]
    if as_json:
        screen.print_json({"ok": not failed, "cases": [_outcome_document(outcome) for outcome in outcomes]})
    else:
        for outcome in outcomes:
            screen.print_text(f"{'failed' if outcome.problems else 'ok':7}{outcome.name}")
            for problem in outcome.problems:
                screen.print_text(f"       {problem}")
    if failed:
        raise CommandFailed(f"{len(failed)} of {len(outcomes)} cases failed")


@app.command(epilog='Example: interlock workflow run offer \'{"sku": "7"}\'')
def run(
    name: Name,
    given: Annotated[str, typer.Argument(help="The input, as JSON or a JSON file.", metavar="JSON|@FILE")] = "{}",
    as_json: screen.AsJson = False,
) -> None:
    """Start a run, and print its id."""
    with connect() as remote, screen.show_progress("starting…"):
        begun = remote.request("POST", f"{PATH}/{quote_segment(name)}/runs", body={"input": read_data(given, "the input")})
    screen.print_json(begun) if as_json else screen.print_text(begun["id"])


@app.command()
def estimate(name: Name, as_json: screen.AsJson = False) -> None:
    """Show how many steps, how much time and how many tokens a run takes, from past runs."""
    with connect() as remote, screen.show_progress("asking…"):
        found = remote.get(f"{PATH}/{quote_segment(name)}/estimate")
    if as_json:
        screen.print_json(found)
        return
    figures = [(each, _shares(found[each])) for each in ("seconds", "steps", "tokens", "unpriced_steps")]
    screen.print_fields([("past runs", f"{found['runs']}, of which {found['completed']} completed"), *figures])
    rows = [(each["step"], each["target"], each["count"], each["failed"], _shares(each["seconds"])) for each in found["by_step"]]
    screen.print_table(["step", "calls", "times", "failed", "seconds"], rows, "no run has ended yet")


def _shares(shares: dict[str, float] | None) -> str:
    return "unknown" if shares is None else f"{shares['p50']:g} (half of the runs), {shares['p90']:g} (nine of ten)"


@app.command()
def rm(name: Name, as_json: screen.AsJson = False) -> None:
    """Remove a workflow. Its runs end."""
    with connect() as remote, screen.show_progress("removing…"):
        remote.request("DELETE", f"{PATH}/{quote_segment(name)}")
    screen.print_json({"name": name, "removed": True}) if as_json else screen.print_text(f"{name} is removed")


def _draw(found: dict[str, Any]) -> str:
    """The document that a gateway answered as SVG."""
    from gateway.workflows.drawing.outline import outline_of
    from gateway.workflows.drawing.svg import svg_of
    from gateway.workflows.dsl.loading import read_document, read_source

    document = read_document(read_source(found["document"]))
    return svg_of(document.document.title or document.document.name, outline_of(document))


def _read(file: Path) -> str:
    """Raises WrongUsage."""
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        raise WrongUsage(f"{file} can't be read: {getattr(error, 'strerror', None) or 'it is not text'}") from error


def _rehearse(file: Path, given: Path) -> "list[Outcome]":
    """The outcome of each case. Raises CommandFailed for a document or a rehearsal that can't be used."""
    import asyncio

    from pydantic import ValidationError

    from gateway.workflows.dsl.checks import check_document
    from gateway.workflows.dsl.loading import read_document, read_source
    from gateway.workflows.expressions.evaluator import Evaluator
    from gateway.workflows.problems import DocumentRefused
    from gateway.workflows.rehearsal.rehearse import rehearse
    from gateway.workflows.rehearsal.script import Rehearsal

    async def run() -> "list[Outcome]":
        source = read_source(_read(file))
        document, evaluator = read_document(source), Evaluator()
        try:
            await check_document(document, source, evaluator)
        finally:
            await evaluator.close()
        return await rehearse(document, Rehearsal.model_validate(read_source(_read(given)).data))

    try:
        return asyncio.run(run())
    except DocumentRefused as refused:
        lines = [f"line {each.line}  {each.path or '/'}  {each.reason}" for each in refused.problems]
        raise CommandFailed("the document can't be used:\n" + "\n".join(lines)) from refused
    except ValidationError as error:
        raise CommandFailed(f"{given} is no rehearsal: {error.errors()[0]['msg']}") from error


def _outcome_document(outcome: "Outcome") -> dict[str, Any]:
    return {
        "name": outcome.name,
        "status": outcome.status,
        "output": outcome.output,
        "steps": list(outcome.steps),
        "seconds": outcome.seconds,
        "problems": list(outcome.problems),
    }


def _print_workflow(found: dict[str, Any]) -> None:
    names = ("name", "version", "document_version", "title", "summary", "status")
    versions = ("versions", len(found["versions"]) if "versions" in found else "")
    screen.print_fields(
        [*((name, found[name]) for name in names), ("fits", _fits(found)), ("may call", " ".join(found["ceiling"])), versions]
    )
    for each in found.get("problems", ()):
        screen.print_note(f"no longer fits: line {each['line']}  {each['path'] or '/'}  {each['reason']}")


def _fits(found: dict[str, Any]) -> str:
    """Whether a workflow starts new runs."""
    return "yes" if found.get("fits", True) else "no, it starts no runs"
