"""The `interlock` command: what each command needs is imported when it runs, so that help comes at once."""

from typing import Any

import typer
from typer.core import TyperGroup

from gateway.commands import agents, check, deadletters, decisions, keys, machine, policy, screen, send, servers, tasks, tools, trail
from gateway.commands.outcomes import Stop


class Door(TyperGroup):
    """Where a command's failure becomes words and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Stop as stop:
            screen.complain(stop.message, stop.todo)
            raise typer.Exit(stop.exit_code) from stop


app = typer.Typer(
    cls=Door,
    name="interlock",
    help="A gateway between AI agents: each acts with the permissions of the person who asked, and no more.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 not reachable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
machine.register(app)
app.command()(check.check)
for name, group in {
    "audit": trail,
    "policy": policy,
    "keys": keys,
    "agent": agents,
    "server": servers,
    "task": tasks,
    "deadletter": deadletters,
}.items():
    app.add_typer(group.app, name=name)
for module in (tools, send, tasks, decisions):
    module.register(app)


def main() -> None:
    """The console script."""
    app(prog_name="interlock")
