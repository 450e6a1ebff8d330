"""doctor: makes all checks, one after another, and prints what they found."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import CommandError, CommandFailed
from gateway.cli.local import installation as home
from gateway.cli.local.doctor.kinds import SEVERITIES, DoctorFinding

if TYPE_CHECKING:
    from gateway.cli.local.doctor.running import Running
    from gateway.server.settings import Settings

WAITING_HOURS: Final = 24.0
Check = Callable[[], Iterator[DoctorFinding]]


def doctor(
    config: home.Config = None,
    waiting: Annotated[
        float, typer.Option(help="Hours after which an unanswered question or a waiting task is a finding.", min=0)
    ] = WAITING_HOURS,
    bundle: Annotated[Path | None, typer.Option(help="Also write a support bundle without secrets to this new file (.zip).")] = None,
    log: Annotated[
        Path | None, typer.Option(help="A file with the gateway's log, whose last lines go into the bundle.", dir_okay=False)
    ] = None,
    as_json: screen.AsJson = False,
) -> None:
    """Look for what usually is wrong: machine, database, settings, running gateway, issuers, certificates. Say what to do."""
    with screen.show_progress("looking…"):
        findings, running = examine(config, waiting)
    if bundle is not None:
        from gateway.cli.local.doctor.bundle import write_bundle

        with screen.show_progress("packing…"):
            write_bundle(bundle, config, findings, running, log)
    _print_findings(findings, bundle, as_json=as_json)
    if problems := sum(finding.kind.severity == "problem" for finding in findings):
        again = f"interlock doctor --config {config}" if config else "interlock doctor"
        raise CommandFailed(f"{screen.format_count(problems, 'problem')} found", f"mend the first one, then look again: {again}")


def _print_findings(findings: list[DoctorFinding], bundle: Path | None, *, as_json: bool) -> None:
    counts = Counter(finding.kind.severity for finding in findings)
    if as_json:
        summary = {"ok": not counts["problem"], "problems": counts["problem"], "warnings": counts["warning"], "notes": counts["note"]}
        document = {**summary, "findings": [finding.to_document() for finding in findings]}
        screen.print_json({**document, **({"bundle": str(bundle)} if bundle else {})})
        return
    shown = [finding.to_document() for finding in findings]
    rows = [(each["id"], each["severity"], f"{each['meaning']} {each['found']}", each["todo"]) for each in shown]
    screen.print_table(["finding", "severity", "what it means", "what to do"], rows, "nothing found")
    if bundle:
        screen.print_note(f"the bundle is in {bundle}; look into it before you pass it on")


def examine(config: Path | None, waiting_hours: float = WAITING_HOURS) -> "tuple[list[DoctorFinding], Running | None]":
    """Returns all findings, the worst first, and what the running gateway answered. Unusable settings end the checks."""
    from gateway.cli.local.doctor import configuration
    from gateway.cli.local.doctor.running import ask_gateway, judge_running

    findings = list(configuration.check_as_installed(config))
    try:
        settings = home.load_settings(config)
    except CommandError:
        return findings, None  # the first check has said why
    running = ask_gateway(settings)
    findings += judge_running(running)
    for check in _list_checks(settings, waiting_hours, is_running=running.readiness is not None):
        findings += _make_check(check)
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.kind.severity)), running


def _list_checks(settings: "Settings", waiting_hours: float, *, is_running: bool) -> list[Check]:
    from gateway.cli.local.doctor import configuration, database, machine, peers, waiting

    plain = (*machine.CHECKS, *configuration.CHECKS, *database.CHECKS, *peers.CHECKS)
    checks: list[Check] = [partial(check, settings) for check in plain]
    checks.append(partial(waiting.check_waiting, settings, waiting_hours))
    checks.append(partial(peers.check_public_address, settings, is_running))
    return checks


def _make_check(check: Check) -> list[DoctorFinding]:
    """Returns the findings of one check. A check that can't be made is a finding too, except for what `interlock check` reports."""
    from sqlalchemy.exc import SQLAlchemyError

    found: list[DoctorFinding] = []
    try:
        found.extend(check())
    except (CommandError, OSError, SQLAlchemyError) as error:
        name = getattr(check, "func", check).__name__.removeprefix("check_").replace("_", " ")
        text = error.message if isinstance(error, CommandError) else str(error) or type(error).__name__
        found.append(DoctorFinding("doctor.incomplete", f"{name}: {text}", getattr(error, "todo", "")))
    return found
