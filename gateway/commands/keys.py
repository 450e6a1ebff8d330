"""keys: the gateway's own signing keys."""

from datetime import UTC, datetime

import typer

from gateway.commands import home, screen

app = typer.Typer(help="The gateway's signing keys.", no_args_is_help=True)


@app.command("list")
def list_keys(config: home.Config = None, as_json: screen.AsJson = False) -> None:
    """Show the keys; the last made signs, those before verify for a day."""
    chosen = home.settings(config)
    ring = home.keys(chosen)
    from policies.key_folder import KeyFolder

    items = [
        {
            "kid": stored.vetted.kid,
            "state": "active" if stored.vetted.kid == ring.active else "retired",
            "created": _time(stored.created / 1e6),
            "retired": None if stored.retired is None else _time(stored.retired),
        }
        for stored in reversed(KeyFolder(chosen.home / "keys").read())
    ]
    if as_json:
        screen.data({"items": items})
        return
    screen.table(["kid", "state", "created", "retired"], [list(item.values()) for item in items])


@app.command()
def rotate(config: home.Config = None, as_json: screen.AsJson = False) -> None:
    """Make a new signing key; a running gateway takes it up within a second."""
    kid = home.keys(home.settings(config)).rotate()
    if as_json:
        screen.data({"kid": kid})
        return
    screen.say(kid)
    screen.note("this key signs from now on; what the one before signed is accepted for 24 hours")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
