"""The `interlock` command. Each command imports what it needs when it runs, so that help is fast."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from adapters.version import VERSION
from gateway.cli import output as screen
from gateway.cli.exit_codes import CommandError, WrongUsage
from gateway.cli.local import audit as trail
from gateway.cli.local import check, keys, policy
from gateway.cli.local import serve as machine
from gateway.cli.people import console, sessions, settings, sign_in
from gateway.cli.remote import agents, approvals, connections, decisions, kills, send, servers, tasks, tools
from gateway.cli.remote import dead_letters as deadletters
from gateway.cli.state import board, claims, memory, subjects
from gateway.cli.workflows import costs, documents, events, runs, triggers


class ExitCodeGroup(TyperGroup):
    """Prints a CommandError and turns it into the exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CommandError as stop:
            screen.print_problem(stop.message, stop.todo)
            raise typer.Exit(stop.exit_code) from stop
        except typer.BadParameter as wrong:  # a missing argument too
            example = wrong.ctx.command.epilog if wrong.ctx is not None else ""
            if not example:
                raise
            screen.print_problem(wrong.format_message(), example)
            raise typer.Exit(WrongUsage.exit_code) from wrong


app = typer.Typer(
    cls=ExitCodeGroup,
    name="interlock",
    epilog=(
        "Environment: INTERLOCK_URL, the gateway to call (http://127.0.0.1:8080); INTERLOCK_TOKEN, your access token "
        "(not set: the session of interlock login); "
        "INTERLOCK_HOME, where serve, token, keys and audit find the gateway's own files (.interlock); INTERLOCK_…, every setting.\n\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 not reachable."
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        screen.print_text(f"interlock {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """A gateway between AI agents: each acts with the permissions of the person it acts for, and no more."""


machine.register(app)
app.command()(check.check)
for name, group in {
    "audit": trail,
    "policy": policy,
    "keys": keys,
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
for module in (sign_in, tools, send, tasks, decisions, kills, console, settings, costs):
    module.register(app)


def main() -> None:
    """Runs the command line; the console script calls it."""
    app(prog_name="interlock")
