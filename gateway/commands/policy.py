"""policy: the rules that the gateway would load."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.commands import home, screen
from gateway.commands.outcomes import Failed

app = typer.Typer(help="The policies.", no_args_is_help=True)


@app.command()
def check(
    folder: Annotated[Path | None, typer.Argument(help="A folder of .cedar files (default: the configured one).")] = None,
    config: home.Config = None,
    as_json: screen.AsJson = False,
) -> None:
    """Read every policy as the gateway would, and say what is wrong."""
    chosen = home.settings(config)
    from policies.cedar import BadPolicy, load

    configured = Path(chosen.policies) if chosen.policies else None
    try:
        rules = load(chosen.roles, folder or configured)
    except BadPolicy as error:
        raise Failed(str(error), "correct the file; a running gateway keeps the last good rules") from error
    names = sorted(set(rules.names.values()))
    if as_json:
        screen.data({"version": rules.version, "policies": names, "doubts": rules.doubts})
        return
    screen.say(f"{len(rules.names)} policies are sound, version {rules.version}")
    screen.say("\n".join(f"  {name}" for name in names))
    for doubt in rules.doubts:
        screen.complain(f"doubtful: {doubt}")
