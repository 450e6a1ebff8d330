"""workflow test and record: rehearsals of documents against given or recorded answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.arguments.completion import complete_run
from gateway.cli.exit_codes import CommandFailed, WrongUsage
from gateway.cli.http_client import connect, quote_segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.workflows.problems import Problem
    from gateway.workflows.rehearsal.rehearse import Outcome
    from gateway.workflows.rehearsal.script import Rehearsal

File = Annotated[Path, typer.Argument(help="The document, YAML or JSON.", metavar="FILE")]
LINE_WIDTH = 140  # of the YAML that `record` prints


def test(
    file: File,
    cases: Annotated[Path | None, typer.Argument(help="The rehearsal (default: beside FILE, ending .test.yaml).", metavar="CASES")] = None,
    from_run: Annotated[str, typer.Option("--from", help="Take the answers and the ending of this run of yours.", metavar="RUN_ID")] = "",
    as_json: screen.AsJson = False,
) -> None:
    """Run a workflow against given answers, in virtual time; only --from asks the gateway."""
    if from_run and cases is not None:
        raise WrongUsage("CASES and --from exclude each other")
    text = read_file(file)
    if cases is None and not from_run and not file.with_suffix(".test.yaml").exists():
        _check_alone(file, text, as_json)
        return
    outcomes = _rehearse(file, text, _recorded(from_run) if from_run else _read_cases(cases or file.with_suffix(".test.yaml")))
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


def record(
    run_id: Annotated[str, typer.Argument(help="A run of yours that completed or failed.", metavar="RUN_ID", autocompletion=complete_run)],
    as_json: screen.AsJson = False,
) -> None:
    """Print a rehearsal with the answers and the ending of a run."""
    import yaml

    found = _case_of(run_id)
    screen.print_json(found) if as_json else screen.print_text(
        yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=LINE_WIDTH), newline=False
    )


def read_file(file: Path) -> str:
    """Raises WrongUsage."""
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        raise WrongUsage(f"{file} can't be read: {getattr(error, 'strerror', None) or 'it is not text'}") from error


def _check_alone(file: Path, text: str, as_json: bool) -> None:
    """Checks a document that has no cases, and says how to make some. Raises CommandFailed."""
    from gateway.workflows.rehearsal.script import Rehearsal

    _rehearse(file, text, Rehearsal.model_construct(cases=[]))
    if as_json:
        screen.print_json({"ok": True, "cases": []})
        return
    cases = file.with_suffix(".test.yaml")
    screen.print_text(f"{file} has no mistakes, and no cases: interlock workflow record RUN_ID >{cases} makes one of a run")


def _case_of(run_id: str) -> dict[str, Any]:
    """The rehearsal of a recorded run. Raises CommandFailed."""
    from gateway.workflows.rehearsal.recording import NotRecorded, case_of_run, rehearsal_of

    with connect() as remote, screen.show_progress("asking…"):
        run, task = (remote.get(f"/api/{family}/{quote_segment(run_id)}") for family in ("runs", "tasks"))
    try:
        return rehearsal_of([case_of_run(run, task)])
    except NotRecorded as error:
        raise CommandFailed(str(error), f"interlock run show {run_id}") from error


def _recorded(run_id: str) -> "Rehearsal":
    from gateway.workflows.rehearsal.script import Rehearsal

    return Rehearsal.model_validate(_case_of(run_id))


def _read_cases(given: Path) -> "Rehearsal":
    """Raises CommandFailed with each problem of the file, and WrongUsage."""
    from pydantic import ValidationError

    from gateway.workflows.dsl.loading import read_source, shape_problems
    from gateway.workflows.problems import DocumentRefused
    from gateway.workflows.rehearsal.script import Rehearsal

    try:
        cases = read_source(read_file(given))
        return Rehearsal.model_validate(cases.data)
    except DocumentRefused as refused:
        raise CommandFailed(_problem_lines(f"{given} can't be used:", refused.problems)) from refused
    except ValidationError as error:
        raise CommandFailed(_problem_lines(f"{given} is no rehearsal:", shape_problems(cases, Rehearsal, error))) from error


def _rehearse(file: Path, text: str, rehearsal: "Rehearsal") -> "list[Outcome]":
    """The outcome of each case. Raises CommandFailed for a document that can't be used."""
    import asyncio

    from gateway.workflows.expressions.evaluator import Evaluator
    from gateway.workflows.problems import DocumentRefused
    from gateway.workflows.publishing.checks import read_alone
    from gateway.workflows.rehearsal.rehearse import rehearse

    async def run() -> "list[Outcome]":
        evaluator = Evaluator()
        try:
            _, document, problems = await read_alone(text, evaluator, lambda _service: True)  # the settings are the gateway's
        finally:
            await evaluator.close()
        if problems:
            raise DocumentRefused(tuple(sorted(set(problems))))
        return await rehearse(document, rehearsal)

    try:
        return asyncio.run(run())
    except DocumentRefused as refused:
        raise CommandFailed(_problem_lines(f"{file} can't be used:", refused.problems)) from refused


def _problem_lines(title: str, problems: "Sequence[Problem]") -> str:
    """The title, and below it each problem with its line and place."""
    found = [{"line": each.line, "path": each.path, "reason": each.reason} for each in problems]
    return "\n".join([title, *screen.problem_lines(found)])


def _outcome_document(outcome: "Outcome") -> dict[str, Any]:
    return {
        "name": outcome.name,
        "status": outcome.status,
        "output": outcome.output,
        "steps": list(outcome.steps),
        "seconds": outcome.seconds,
        "problems": list(outcome.problems),
    }
