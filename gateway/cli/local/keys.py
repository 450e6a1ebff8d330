"""keys: the gateway's signing keys, and the keys that encrypt its vault."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import output as screen
from gateway.cli.exit_codes import CommandFailed
from gateway.cli.local import installation as home

app = typer.Typer(help="The gateway's keys for signing and for encrypting credentials.", no_args_is_help=True)


@app.command("list")
def list_keys(config: home.Config = None, as_json: screen.AsJson = False) -> None:
    """Show the keys. The newest signing key signs, earlier ones verify for a day; the active vault key encrypts credentials."""
    chosen = home.load_settings(config)
    ring = home.open_signing_keys(chosen)
    from policies.keys.key_folder import KeyFolder

    items = [
        {
            "use": "sign",
            "kid": stored.vetted.kid,
            "state": "active" if stored.vetted.kid == ring.active_kid else "retired",
            "created": _format_time(stored.created / 1e6),
            "retired": None if stored.retired_at is None else _format_time(stored.retired_at),
        }
        for stored in reversed(KeyFolder(chosen.home / "keys").read())
    ]
    items += [
        {"use": "seal", "kid": kek.id, "state": "old" if number else "active", "created": _format_time(kek.created / 1e6), "retired": None}
        for number, kek in enumerate(home.open_vault_keys(chosen).all)
    ]
    if as_json:
        screen.print_json({"items": items})
        return
    rows = [
        (one["use"], one["kid"], one["state"], screen.format_time(one["created"] or ""), screen.format_time(one["retired"] or ""))
        for one in items
    ]
    screen.print_table(["use", "kid", "state", "created", "retired"], rows)


@app.command(epilog="Example: INTERLOCK_HOME=secrets/home interlock keys create")
def create(config: home.Config = None, as_json: screen.AsJson = False) -> None:
    """Make the first signing key before the first start, for gateways on several machines, which share it."""
    chosen = home.load_settings(config)
    folder = chosen.home / "keys"
    if folder.is_dir() and any(folder.glob("*.json")):
        raise CommandFailed(f"there are keys in {folder} already", "for a new one: interlock keys rotate")
    kid = home.open_signing_keys(chosen, create=True).active_kid
    screen.print_json({"kid": kid}) if as_json else screen.print_text(kid)


@app.command()
def rotate(
    config: home.Config = None,
    vault: Annotated[bool, typer.Option("--vault", help="Rotate the key that encrypts credentials, instead of the signing key.")] = False,
    as_json: screen.AsJson = False,
) -> None:
    """Make a new key, which a running gateway uses within a second."""
    if vault:
        _rotate_vault(config, as_json)
        return
    kid = home.open_signing_keys(home.load_settings(config)).rotate()
    if as_json:
        screen.print_json({"kid": kid})
        return
    screen.print_text(kid)
    screen.print_note("this key signs from now on; signatures of the previous key are accepted for 24 hours")


def _rotate_vault(config: Path | None, as_json: bool) -> None:
    """Creates a key where the gateway makes its own, then rewraps all secrets with the active key."""
    chosen = home.load_settings(config)
    keys = home.open_vault_keys(chosen)
    from gateway.cli.local.rewrap_secrets import rewrap_secrets
    from policies.vault.envelope import EnvelopeEncryption

    kid = keys.rotate().id if keys.has_own_keys else keys.active.id
    with home.open_engine(chosen) as engine:
        done = rewrap_secrets(engine, EnvelopeEncryption(keys))
    dropped = keys.delete_old(set(done.kek_ids)) if not done.unusable_rows else []
    if as_json:
        screen.print_json({"kid": kid, "rows": done.rows, "unusable": done.unusable_rows, "dropped": dropped})
        return
    screen.print_text(kid)
    screen.print_note(f"{done.rows} secrets are wrapped with this key; the previous key stays for writes in progress")
    if done.unusable_rows:
        screen.print_note(f"{done.unusable_rows} can't be decrypted by any key: their owners will be asked to connect again")
    if not keys.has_own_keys:
        screen.print_note("vault.keys sets the keys: to change them put the new one first, restart, run this, then remove the old one")


@app.command()
def export(config: home.Config = None) -> None:
    """Write all public keys, former ones too, as a JWK Set. With it `audit verify FILE --keys` needs no gateway."""
    screen.print_json(home.open_signing_keys(home.load_settings(config)).all_jwks())


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
