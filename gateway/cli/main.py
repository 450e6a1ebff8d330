"""The `interlock` command. Each command imports what it needs when it runs, so that help is fast."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from adapters.version import describe_version
from gateway.cli import output as screen
from gateway.cli.configuration import commands as configuration
from gateway.cli.exit_codes import CommandError, WrongUsage
from gateway.cli.local import audit as trail
from gateway.cli.local import check, database, keys, policy
from gateway.cli.local import serve as machine
from gateway.cli.local.backups import commands as backups
from gateway.cli.local.doctor.command import doctor
from gateway.cli.people import console, sessions, settings, sign_in
from gateway.cli.remote import agents, approvals, connections, decisions, kills, send, servers, tasks, tools
from gateway.cli.remote import dead_letters as deadletters
from gateway.cli.state import board, claims, memory, subjects
from gateway.cli.workflows import costs, documents, events, runs, triggers

UsageError: Any = typer.BadParameter.__bases__[0]  # of any kind; Typer does not export it
WANTS_JSON = "interlock.wants-json"
HELP_TODO = "interlock --help lists the commands, and interlock COMMAND --help their options"


class ExitCodeGroup(TyperGroup):
    """Prints a CommandError, as JSON where --json asks for it, and turns it into the exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[WANTS_JSON] = "--json" in args[: args.index("--") if "--" in args else None]
        with _printed_errors(is_json=ctx.meta[WANTS_JSON]):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _printed_errors(is_json=ctx.meta[WANTS_JSON]):
            return super().invoke(ctx)


@contextmanager
def _printed_errors(*, is_json: bool) -> Iterator[None]:
    """Prints the error that ends a command, and raises its exit code. Usage errors without an example are left to Typer, as text."""
    try:
        yield
    except CommandError as stop:
        _print_error(stop, is_json=is_json)
        raise typer.Exit(stop.exit_code) from stop
    except UsageError as wrong:
        context: Any = getattr(wrong, "ctx", None)
        example = (context and context.command.epilog) or ""
        has_example = example.startswith("Example: ")
        if not (has_example or is_json):
            raise
        _print_error(WrongUsage(wrong.format_message(), example if has_example else HELP_TODO), is_json=is_json)
        raise typer.Exit(WrongUsage.exit_code) from wrong


def _print_error(error: CommandError, *, is_json: bool) -> None:
    """Prints an error on stderr: one line of JSON, or text."""
    if is_json:
        screen.print_json_line(error.as_document(), is_error=True)
    else:
        screen.print_problem(error.message, error.todo)


app = typer.Typer(
    cls=ExitCodeGroup,
    name="interlock",
    epilog=(
        "Environment: INTERLOCK_URL, the gateway to call (http://127.0.0.1:8080); INTERLOCK_TOKEN, your access token "
        "(not set: the session of interlock login); "
        "INTERLOCK_HOME, where serve, token, keys, audit, backup and restore find the gateway's own files (.interlock); "
        "INTERLOCK_…, every setting.\n\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 not reachable; of diff: 5 differences; 78 unusable settings, home or "
        "database.\n\n"
        "docs/….md in texts: a page of the documentation, which is in the source of this version."
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        screen.print_text(f"interlock {describe_version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show version and commit, and exit."),
    ] = False,
) -> None:
    """A gateway between AI agents: each acts with the permissions of the person it acts for, and no more."""


machine.register(app)
app.command()(check.check)
backups.register(app)
app.command()(doctor)
for name, group in {
    "audit": trail,
    "policy": policy,
    "keys": keys,
    "db": database,
    "agent": agents,
    "server": servers,
    "task": tasks,
    "workflow": documents,
    "run": runs,
    "state": board,
    "event": events,
    "trigger": triggers,
    "claim": claims,
    "subject": subjects,
    "memory": memory,
    "connection": connections,
    "session": sessions,
    "approval": approvals,
    "deadletter": deadletters,
}.items():
    app.add_typer(group.app, name=name)
for module in (sign_in, tools, send, tasks, decisions, kills, console, settings, costs, configuration):
    module.register(app)


def main() -> None:
    """Runs the command line; the console script calls it."""
    app(prog_name="interlock")
