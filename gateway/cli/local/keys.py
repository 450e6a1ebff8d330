"""keys: the gateway's own signing keys, and those that seal its vault."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import output as screen
from gateway.cli.local import installation as home

app = typer.Typer(help="The gateway's keys, to sign with and to seal credentials.", no_args_is_help=True)


@app.command("list")
def list_keys(config: home.Config = None, as_json: screen.AsJson = False) -> None:
    """Show the keys: of those that sign the last made does, those before verify for a day; credentials are sealed with the active one."""
    chosen = home.settings(config)
    ring = home.keys(chosen)
    from policies.keys.key_folder import KeyFolder

    items = [
        {
            "use": "sign",
            "kid": stored.vetted.kid,
            "state": "active" if stored.vetted.kid == ring.active else "retired",
            "created": _time(stored.created / 1e6),
            "retired": None if stored.retired is None else _time(stored.retired),
        }
        for stored in reversed(KeyFolder(chosen.home / "keys").read())
    ]
    items += [
        {"use": "seal", "kid": kek.id, "state": "old" if number else "active", "created": _time(kek.created / 1e6), "retired": None}
        for number, kek in enumerate(home.vault_keys(chosen).all)
    ]
    if as_json:
        screen.data({"items": items})
        return
    rows = [
        (one["use"], one["kid"], one["state"], screen.moment(one["created"] or ""), screen.moment(one["retired"] or "")) for one in items
    ]
    screen.table(["use", "kid", "state", "created", "retired"], rows)


@app.command()
def rotate(
    config: home.Config = None,
    vault: Annotated[bool, typer.Option("--vault", help="The key that seals credentials, instead of the one that signs.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Make a new key; a running gateway takes it up within a second."""
    if vault:
        _rotate_vault(config, as_json)
        return
    kid = home.keys(home.settings(config)).rotate()
    if as_json:
        screen.data({"kid": kid})
        return
    screen.say(kid)
    screen.note("this key signs from now on; what the one before signed is accepted for 24 hours")


def _rotate_vault(config: Path | None, as_json: bool) -> None:
    """A new key, where the gateway makes them itself; then everything is wrapped with the one that is active."""
    chosen = home.settings(config)
    keys = home.vault_keys(chosen)
    from gateway.cli.local.rewrap_secrets import rewrap
    from policies.vault.envelope import Envelope

    kid = keys.rotate().id if keys.rotates else keys.active.id
    with home.engine(chosen) as engine:
        done = rewrap(engine, Envelope(keys))
    dropped = keys.drop_old(set(done.kept)) if not done.unusable else []
    if as_json:
        screen.data({"kid": kid, "rows": done.rows, "unusable": done.unusable, "dropped": dropped})
        return
    screen.say(kid)
    screen.note(f"{done.rows} secrets are wrapped with this key; the one before stays for what was just being written")
    if done.unusable:
        screen.note(f"{done.unusable} can't be opened by any key: their people are asked anew")
    if not keys.rotates:
        screen.note("vault.keys sets the keys: to change them put the new one first, restart, run this, then take the old one away")


@app.command()
def export(config: home.Config = None) -> None:
    """Write all public keys there ever were, as a JWK Set: with it `audit verify FILE --keys` needs no gateway."""
    screen.data(home.keys(home.settings(config)).published())


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
