"""apply, diff and export: the configuration of a gateway as documents that can be kept in git."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import CommandFailed, GatewayUnreachable, WrongUsage
from gateway.cli.http_client import connect

DEFAULT_LABEL = "default"
Files = Annotated[
    list[str] | None,
    typer.Option("--file", "-f", help="A file, a folder with *.yaml, or - for standard input; may be repeated.", metavar="FILE|DIR|-"),
]
Label = Annotated[str, typer.Option("--label", "--owner", help="Whose documents these are: marks what they create.", metavar="LABEL")]
Prune = Annotated[bool, typer.Option("--prune", help="Delete what an earlier apply with this label created and is not declared now.")]
TakeOver = Annotated[bool, typer.Option("--take-over", help="Also change what has the label of other documents, and mark it as ours.")]
SIGNS = {"create": "+", "change": "~", "delete": "-", "problem": "!"}
PAST = {"create": "created", "change": "changed", "delete": "deleted"}


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example: interlock apply -f gateway/ --prune --label shop")(apply)
    app.command(epilog="Example: interlock diff -f gateway/")(diff)
    app.command(epilog="Example: interlock export >gateway.yaml")(export)


def apply(
    files: Files = None,
    label: Label = DEFAULT_LABEL,
    prune: Prune = False,
    take_over: TakeOver = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the plan; new agents and servers are asked what they offer.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop-on-failure", help="Leave the rest as it is after the first failure.")] = False,
    show_secrets: Annotated[bool, typer.Option("--show-secrets", help="Print the client secrets of new agents.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Make agents, servers, virtual servers and workflows as documents say. What is as they say stays untouched."""
    from gateway.cli.configuration.documents import DocumentReader
    from gateway.cli.configuration.execution import PlanExecution
    from gateway.cli.configuration.plan import Planner, PlanOptions

    declared = DocumentReader().read(_require_files(files))
    with connect() as remote:
        steps = Planner(remote, PlanOptions(label, prune, take_over, check=dry_run)).plan(declared)
        if dry_run:
            _print_plan(steps, as_json)
            if any(step.action == "problem" for step in steps):
                raise typer.Exit(CommandFailed.exit_code)
            return
        execution = PlanExecution(remote, stop=stop, report=lambda result: None if as_json else _print_result(result, show_secrets))
        results = execution.run(steps)
    _print_outcome(results, as_json, show_secrets=show_secrets)
    if execution.lost_gateway is not None:
        raise typer.Exit(GatewayUnreachable.exit_code)
    if any(each.outcome not in ("done", "unchanged") for each in results):
        raise typer.Exit(CommandFailed.exit_code)


def diff(
    files: Files = None, label: Label = DEFAULT_LABEL, prune: Prune = False, take_over: TakeOver = False, as_json: screen.AsJson = False
) -> None:
    """Show what apply would create, change and delete. Exit code 0: nothing, 5: something, 1: it could not be applied."""
    from gateway.cli.configuration.documents import DocumentReader
    from gateway.cli.configuration.plan import Planner, PlanOptions
    from gateway.cli.configuration.problems import DIFFERENCES_FOUND

    declared = DocumentReader().read(_require_files(files))
    with connect() as remote:
        steps = Planner(remote, PlanOptions(label, prune, take_over)).plan(declared)
    _print_plan(steps, as_json)
    actions = {step.action for step in steps}
    if "problem" in actions:
        raise typer.Exit(CommandFailed.exit_code)
    if actions - {"none"}:
        raise typer.Exit(DIFFERENCES_FOUND)


def export(
    label: Annotated[str | None, typer.Option("--label", "--owner", help="Only what an apply with this label created.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only these kinds: Agent, Server, VirtualServer, Workflow.")] = None,
    as_json: screen.AsJson = False,
) -> None:
    """Print what the gateway has as documents for apply. Secrets stay at the gateway, as `stored:`."""
    from gateway.cli.configuration.exporting import count_stored, document_of, why_left_out
    from gateway.cli.configuration.kinds import KINDS
    from gateway.cli.configuration.plan import read_declarations
    from gateway.cli.configuration.yaml_text import write_documents

    if unknown := set(kind or ()) - KINDS.keys():
        raise WrongUsage(f"there is no kind {min(unknown)}", f"kinds: {', '.join(KINDS)}")
    with connect() as remote, screen.show_progress("asking…"):
        found = read_declarations(remote, **({} if label is None else {"label": label}))
    chosen = [each for each in found.values() if not kind or each["kind"] in kind]
    documents = [document_of(each) for each in chosen if not why_left_out(each)]
    documents.sort(key=lambda each: (KINDS[each["kind"]].order, each["kind"], each["name"]))
    screen.print_json({"items": documents}) if as_json else typer.echo(write_documents(documents) if documents else "", nl=False)
    for each in chosen:
        if reason := why_left_out(each):
            screen.print_note(f"left out: {each['kind']} {each['name']} {reason}")
    if stored := count_stored(documents):
        secrets = screen.format_count(stored, "secret")
        screen.print_note(f"{secrets} at the gateway: replace `stored:` by env:NAME or file:PATH to apply this to another one")


def _require_files(files: list[str] | None) -> list[str]:
    if not files:
        raise WrongUsage("there are no documents", "give -f FILE, a folder with *.yaml, or - for standard input")
    return files


def _print_plan(steps: Sequence[Any], as_json: bool) -> None:
    counts = {action: sum(step.action == action for step in steps) for action in ("create", "change", "delete", "none", "problem")}
    if as_json:
        screen.print_json({"items": [step.to_document() for step in steps], "counts": counts})
        return
    for step in steps:
        if step.action == "problem":
            screen.print_text(f"! {step.title}\n    {step.problem}")
        elif step.action != "none":
            screen.print_text(f"{SIGNS[step.action]} {step.title}")
            _print_changes(step)
    some = (("create", "to create"), ("change", "to change"), ("delete", "to delete"), ("none", "unchanged"), ("problem", "with problems"))
    screen.print_text(", ".join(f"{counts[action]} {words}" for action, words in some if counts[action]))


def _print_changes(step: Any) -> None:
    for change in step.changes:
        is_new = step.action == "create"
        shown = (screen.format_value(change.after) or "—") if is_new else screen.format_change(change.before, change.after)
        screen.print_text(f"    {change.path}: {shown}")


def _print_result(result: Any, show_secrets: bool) -> None:
    """Prints what became of one object as soon as it is known; nothing for one that is as its document says."""
    step = result.step
    if result.outcome == "done":
        screen.print_text(f"{step.title} is {PAST[step.action]}")
        if step.action == "change":
            _print_changes(step)
        if result.status in ("pending", "quarantined"):
            screen.print_note(f"it is {result.status} and waits for an operator: {step.kind.approve} {step.name}")
        if result.client_secret:
            known, hidden = f"its client secret is {result.client_secret}", f"for its client secret: interlock agent secret {step.name}"
            screen.print_note(known if show_secrets else hidden)
    elif result.outcome == "failed":
        screen.print_problem(f"{step.title} failed: {result.problem}")
    elif result.outcome == "skipped":
        screen.print_note(f"{step.title} is skipped: {result.problem}")


def _print_outcome(results: Sequence[Any], as_json: bool, *, show_secrets: bool) -> None:
    outcomes = {name: sum(each.outcome == name for each in results) for name in ("done", "unchanged", "failed", "skipped")}
    if as_json:
        items = [each.to_document() for each in results]
        hidden = () if show_secrets else ("client_secret",)
        screen.print_json({"items": [{k: v for k, v in each.items() if k not in hidden} for each in items], "counts": outcomes})
        return
    changed = outcomes["done"]
    if changed == 0 and not outcomes["failed"] and not outcomes["skipped"]:
        screen.print_text(f"nothing to do: {screen.format_count(outcomes['unchanged'], 'object')} as declared")
        return
    shown = {"applied": changed, **{name: outcomes[name] for name in ("unchanged", "failed", "skipped")}}
    screen.print_text(", ".join(f"{count} {name}" for name, count in shown.items() if count))
