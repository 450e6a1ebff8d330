"""backup writes the gateway's database and home as one file, restore reads it."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapters.version import VERSION
from gateway.cli import output as screen
from gateway.cli.exit_codes import CommandFailed
from gateway.cli.local import installation as home
from gateway.cli.local.backups.steps import explained_errors, format_size, read_passphrase, show_steps

if TYPE_CHECKING:
    from gateway.server.settings import Settings
    from gateway.storage.files.backups.archive import Manifest
    from gateway.storage.files.backups.restoration import Restored

PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="A file whose first line encrypts the keys in the backup, and seals all of it.")
]


def backup(
    file: Annotated[Path | None, typer.Argument(help="The new file (default: interlock-backup-DATE.tar.gz in this folder).")] = None,
    without_keys: Annotated[bool, typer.Option("--without-keys", help="Leave out the keys; keep them elsewhere.")] = False,
    passphrase_file: PassphraseFile = None,
    heads: Annotated[list[Path] | None, typer.Option(help="audit.heads of a gateway with another home on the same database.")] = None,
    config: home.Config = None,
    as_json: screen.AsJson = False,
) -> None:
    """Back up database, keys and audit heads as one file, while the gateway runs. PostgreSQL: needs pg_dump."""
    chosen, passphrase, now = home.load_settings(config), read_passphrase(passphrase_file), datetime.now(UTC)
    target = file or Path(now.strftime("interlock-backup-%Y%m%dT%H%M%SZ.tar.gz"))
    _refuse_missing_database(chosen)
    keys = home.open_signing_keys(chosen)
    from gateway.storage.database import engine_for
    from gateway.storage.files.backups.creation import BackupOptions, BackupOrigin, make_backup
    from policies.audit.heads import read_heads

    with explained_errors("no backup was made"), show_steps() as step:
        other = [line for path in heads or () for line in read_heads(path)]
        engine = engine_for(chosen.database_url)
        origin = BackupOrigin(engine, chosen.database_url, chosen.home, keys, keys.all_jwks, os.environ, VERSION, now)
        try:
            manifest = make_backup(origin, target, BackupOptions(not without_keys, passphrase, other), step)
        finally:
            engine.dispose()
    _print_backup(target, manifest, chosen, as_json, is_sealed=bool(passphrase))


def _refuse_missing_database(settings: "Settings") -> None:
    """Raises CommandFailed where the SQLite file is missing, which a connection would make."""
    file = home.sqlite_file(settings)
    if file is not None and not file.exists():
        raise CommandFailed(f"there is no database {file}", "is INTERLOCK_HOME right? the first interlock serve creates it")


def _print_backup(target: Path, manifest: "Manifest", settings: "Settings", as_json: bool, *, is_sealed: bool) -> None:
    size, records = target.stat().st_size, sum(manifest.audit.values())
    if as_json:
        screen.print_json({"file": str(target), "size": size, **_summary(manifest), "parts": len(manifest.parts), "sealed": is_sealed})
        return
    screen.print_text(f"{target}  {format_size(size)}, schema {manifest.revision}, {screen.format_count(records, 'audit record')}")
    if manifest.keys == "included":
        screen.print_note(
            "it contains the secret keys of the gateway: anyone who reads it can act as the gateway. Keep it as you keep keys, "
            "or use --passphrase-file or --without-keys"
        )
    elif manifest.keys == "left out":
        screen.print_note(f"the keys are not in it: keep {settings.home / 'keys'} elsewhere; without them the stored credentials are lost")
    if settings.vault.keys:
        screen.print_note("vault.keys sets the keys of the vault: they are not in the home, and not in this backup")


def _summary(manifest: "Manifest") -> dict[str, object]:
    return {
        "created": manifest.created,
        "version": manifest.version,
        "database": manifest.database,
        "revision": manifest.revision,
        "records": sum(manifest.audit.values()),
        "keys": manifest.keys,
    }


def restore(
    file: Annotated[Path, typer.Argument(help="A file that interlock backup has written.")],
    force: Annotated[bool, typer.Option("--force", help="Move aside what is in the home and the database, and restore there.")] = False,
    accept_flaws: Annotated[
        bool, typer.Option("--accept-flaws", help="Restore although the audit in the backup is not sound, or its seal can't be checked.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    config: home.Config = None,
    as_json: screen.AsJson = False,
) -> None:
    """Restore a backup into an empty home and database, after its seal, hashes, schema and audit were verified. Stop the gateway first."""
    chosen, passphrase = home.load_settings(config), read_passphrase(passphrase_file)
    from gateway.storage.files.backups.restoration import Destination, restore_backup

    with explained_errors("nothing was restored"), show_steps() as step:
        to = Destination(
            chosen.home, chosen.database_url, os.environ, datetime.now(UTC), passphrase, replaces=force, accepts_flaws=accept_flaws
        )
        restored = restore_backup(file, to, step)
    todo = list(_next_steps(restored, chosen))
    replaced = to.replaced_name if restored.has_replaced else ""
    if as_json:
        proved = {
            "authentic": restored.is_authentic,
            "sound": restored.proof.is_sound,
            "flaws": len(restored.proof.flaws),
            "replaced": replaced,
            "next": todo,
        }
        screen.print_json({"file": str(file), **_summary(restored.manifest), **proved})
        return
    screen.print_text(
        f"restored the state of {screen.format_time(restored.manifest.created)} into {chosen.home}; "
        f"the audit is {'sound' if restored.proof.is_sound else 'not sound'}: {screen.format_count(restored.proof.records, 'record')}"
    )
    if not restored.is_authentic:
        screen.print_note(
            "no passphrase proves who made this backup: whoever could write the file could have changed it, the audit included"
        )
    if replaced:
        screen.print_note(f"what was there is called {replaced} now, in the home and at the database; delete it when you need it no more")
    for number, line in enumerate(todo, 1):
        screen.print_text(f"{number}. {line}")


def _next_steps(restored: "Restored", settings: "Settings") -> list[str]:
    """What the operator does now, in order."""
    from gateway.storage.migrations import HEAD

    steps = []
    if restored.manifest.keys == "left out":
        steps.append(f"copy the keys to {settings.home / 'keys'} before the first start: the gateway makes new ones where there are none")
    if settings.vault.keys:
        steps.append("make sure that vault.keys has the keys of the time of the backup")
    if restored.manifest.revision != HEAD:
        steps.append(f"the first start migrates the schema from {restored.manifest.revision} to {HEAD}; interlock migrate does it now")
    steps.append("start the gateway: interlock serve")
    steps.append("repeat what was revoked or stopped after the backup: interlock revoke, interlock kill")
    return steps


def register(app: typer.Typer) -> None:
    for command, example in ((backup, "interlock backup"), (restore, "interlock restore interlock-backup-20260131T120000Z.tar.gz")):
        app.command(epilog=f"Example: {example}")(command)
