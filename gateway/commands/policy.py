"""policy: the rules that the gateway would load."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands import home, screen
from gateway.commands.outcomes import Failed

if TYPE_CHECKING:
    from gateway.settings import Settings
    from policies.cedar import KnownTool, RuleSet

app = typer.Typer(help="The policies.", no_args_is_help=True)


Folder = Annotated[Path | None, typer.Argument(help="A folder of .cedar files (default: the configured one).")]


@app.command()
def check(
    folder: Folder = None,
    config: home.Config = None,
    as_json: screen.AsJson = False,
) -> None:
    """Read every policy as the gateway would, and say what is wrong."""
    chosen = home.settings(config)
    rules = _rules(chosen, folder)
    names = sorted(set(rules.names.values()))
    if as_json:
        screen.data({"version": rules.version, "policies": names, "doubts": rules.doubts})
        return
    screen.say(f"{len(rules.names)} policies are sound, version {rules.version}")
    screen.say("\n".join(f"  {name}" for name in names))
    for doubt in rules.doubts:
        screen.complain(f"doubtful: {doubt}")


@app.command()
def schema(config: home.Config = None) -> None:
    """Print the Cedar schema of what policies can speak of, with the arguments of every registered tool, for editors."""
    chosen = home.settings(config)
    from policies.cedar import schema_text

    screen.say(schema_text(registered(chosen)))


def _rules(chosen: "Settings", folder: Path | None) -> "RuleSet":
    from policies.cedar import BadPolicy, load

    configured = Path(chosen.policies) if chosen.policies else None
    try:
        return load(chosen.roles, folder or configured, registered(chosen), known=())
    except BadPolicy as error:
        raise Failed(str(error), "correct the file; a running gateway keeps the last good rules") from error


def registered(chosen: "Settings") -> "list[KnownTool]":
    """The tools in the gateway's database; none where there is none yet."""
    from gateway.tool_schemas import kept_tools

    try:
        with home.reading(chosen) as connection:
            return kept_tools(connection)
    except Failed:
        return []
