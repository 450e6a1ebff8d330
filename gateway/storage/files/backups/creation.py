"""Makes a backup: the database at one moment, and the files of the home folder that belong to it."""

import base64
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from sqlalchemy import Engine

from gateway.storage.files.backups import home_files, key_encryption
from gateway.storage.files.backups.archive import (
    FORMAT,
    USE_ANOTHER,
    BackupUnusable,
    Manifest,
    PartSource,
    Report,
    describe_parts,
    encode_manifest,
    write_archive,
)
from gateway.storage.files.backups.manifest_seal import seal_manifest
from gateway.storage.files.backups.part_names import ENCRYPTED_KEYS, HOME, PART_OF, PUBLIC_KEYS, SECRETS, is_of_home
from gateway.storage.files.backups.snapshot import DatabaseState, open_snapshot
from gateway.storage.files.database_file import sqlite_path
from policies.audit.heads import StatementVerifier, read_heads

Step = Callable[[str], Report]  # announces a step, and returns what its progress is reported to


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """`other_heads`: signed heads of gateways with another home. `passphrase` encrypts the keys and seals the backup."""

    has_keys: bool = True
    passphrase: str = ""
    other_heads: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class BackupOrigin:
    """What is backed up. `public_keys` returns all that ever signed; `environment` has the PATH and settings of PostgreSQL's programs."""

    engine: Engine
    database_url: str
    home: Path
    keys: StatementVerifier
    public_keys: Callable[[], Mapping[str, object]]
    environment: Mapping[str, str]
    version: str
    created: datetime


def make_backup(origin: BackupOrigin, target: Path, options: BackupOptions, step: Step) -> Manifest:
    """Writes the backup while gateways may be running. Raises BackupUnusable, FileExistsError, OSError and SQLAlchemyError.

    Keys, heads and spool are read before and after the moment of the database, so that all which its rows need is there: a row may be
    wrapped with a vault key that is deleted during the backup, or with a new one.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    if not target.parent.is_dir():
        raise BackupUnusable(
            f"the folder {target.parent.absolute()} does not exist", f"mount its disk, or make it: mkdir -p {target.parent.absolute()}"
        )
    if options.passphrase:
        key_encryption.refuse_short_passphrase(options.passphrase)
    with tempfile.TemporaryDirectory(prefix=".interlock-backup-", dir=target.parent) as folder:
        work, home = Path(folder), origin.home
        keys, heads, spool = (
            home_files.read_keys(home),
            [*read_heads(home / home_files.HEADS), *options.other_heads],
            home_files.read_spool(home),
        )
        with open_snapshot(origin.engine, origin.database_url, origin.environment) as snapshot:
            kind, state = snapshot.kind, snapshot.state
            snapshot.copy_to(work / "database", step("copying the database"))
        covered = home_files.heads_at(heads, home, state.audit, origin.keys)
        parts = {
            PUBLIC_KEYS: msgspec.json.encode(origin.public_keys()),
            f"{HOME}{home_files.HEADS}": "".join(f"{line}\n" for line in covered).encode(errors="surrogateescape"),
            f"{HOME}{home_files.SPOOL}": home_files.merge_lines(spool, home_files.read_spool(home)),
            **_key_parts({**keys, **home_files.read_keys(home)}, options),
        }
        sources = [*_stage_parts(work, parts), *_stage_files(work, origin), PartSource(PART_OF[kind], work / "database")]
        step("reading what was copied")
        manifest = _describe(origin, options, kind, state, sources)
        seal = seal_manifest(encode_manifest(manifest), options.passphrase) if options.passphrase else b""
        write_archive(target, manifest, seal, sources, step("writing the archive"))
    return manifest


def _describe(origin: BackupOrigin, options: BackupOptions, kind: str, state: DatabaseState, sources: Sequence[PartSource]) -> Manifest:
    keys = "left out" if not options.has_keys else "encrypted" if options.passphrase else "included"
    created = origin.created.isoformat(timespec="seconds")
    return Manifest(FORMAT, origin.version, created, kind, state.revision, state.tables, state.audit, describe_parts(sources), keys)


def _key_parts(keys: Mapping[str, bytes], options: BackupOptions) -> dict[str, bytes]:
    """Returns the parts below `secrets/`: the files themselves, or all of them encrypted as one part."""
    if not options.has_keys:
        return {}
    if not options.passphrase:
        return {f"{SECRETS}{name}": data for name, data in keys.items()}
    return {ENCRYPTED_KEYS: key_encryption.encrypt(pack_keys(keys), options.passphrase)}


def _stage_parts(work: Path, parts: Mapping[str, bytes]) -> list[PartSource]:
    sources = []
    for number, (name, data) in enumerate(sorted(parts.items())):
        if data:
            path = work / f"part-{number}"
            path.write_bytes(data)
            sources.append(PartSource(name, path, name.startswith(SECRETS), name == ENCRYPTED_KEYS))
    return sources


def _stage_files(work: Path, origin: BackupOrigin) -> list[PartSource]:
    """Copies the other files of the home, since they may change before they are written."""
    sources = []
    for number, path in enumerate(home_files.list_other_files(origin.home, sqlite_path(origin.database_url))):
        sources.append(PartSource(f"{HOME}{_name_in(origin.home, path)}", work / f"file-{number}"))
        shutil.copyfile(path, sources[-1].path)
    return sources


def _name_in(home: Path, path: Path) -> str:
    """Returns the path of a file in the home. Raises BackupUnusable for one that is no UTF-8, which a manifest can't have."""
    name = path.relative_to(home).as_posix()
    if not name.isprintable():
        raise BackupUnusable(f"the home has a file with an unprintable name: {name!a}", "rename or remove it")
    return name


def pack_keys(keys: Mapping[str, bytes]) -> bytes:
    return msgspec.json.encode({name: base64.b64encode(data).decode() for name, data in keys.items()})


def unpack_keys(packed: bytes) -> dict[str, bytes]:
    """Returns the files of keys by their path in the home. Raises BackupUnusable."""
    try:
        keys = {name: base64.b64decode(data) for name, data in msgspec.json.decode(packed, type=dict[str, str]).items()}
    except ValueError as error:  # also of msgspec
        raise BackupUnusable("the keys in the backup can't be read", USE_ANOTHER) from error
    if strange := [name for name in keys if not is_of_home(f"{SECRETS}{name}")]:
        raise BackupUnusable(f"the backup has a key that is none: {ascii(strange[0])[:200]}", USE_ANOTHER)
    return keys
