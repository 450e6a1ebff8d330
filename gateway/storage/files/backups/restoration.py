"""Restores a backup: everything is read and verified before the gateway's home has any of it."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from gateway.storage.files.backups import home_files, key_encryption
from gateway.storage.files.backups.archive import USE_ANOTHER, BackupUnusable, Manifest, Report
from gateway.storage.files.backups.archive_reader import OpenArchive, open_archive
from gateway.storage.files.backups.creation import Step, unpack_keys
from gateway.storage.files.backups.part_names import ENCRYPTED_KEYS, HOME, PART_OF, POSTGRES, PUBLIC_KEYS, SECRETS, SQLITE
from gateway.storage.files.backups.placement import Moves, missing_paths, refuse_without_room, remove_on_failure, undo_on_failure
from gateway.storage.files.backups.postgres_tools import PostgresTools
from gateway.storage.files.backups.snapshot import read_state
from gateway.storage.files.backups.targets import PostgresTarget, SqliteTarget
from gateway.storage.files.data_folder import HOME_LOCK, lock_home
from gateway.storage.files.database_file import lock_database_file, lock_path, sqlite_path
from gateway.storage.migrations import HEAD
from policies.audit.heads import read_heads
from policies.audit.proof import Proof, read_rows, verify_chains
from policies.keys.jwks import BadKeySet
from policies.keys.published import PublishedKeys

UNPACKED: Final = ".restoring-"  # begins the name of the folder that a backup is unpacked to, in the home
KINDS: Final = {SQLITE: "SQLite", POSTGRES: "PostgreSQL"}


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a backup is restored to. `replaces`: what is there is moved aside. `accepts_flaws`: of the audit."""

    home: Path
    database_url: str
    environment: Mapping[str, str]
    moment: datetime
    passphrase: str = ""
    replaces: bool = False
    accepts_flaws: bool = False

    @property
    def replaced_name(self) -> str:
        """The name for what is moved aside: of a folder, a schema, or at the end of a file's name."""
        return self.moment.strftime(f"{home_files.REPLACED}%Y%m%d-%H%M%S")

    @property
    def kind(self) -> str:
        return SQLITE if sqlite_path(self.database_url) is not None else POSTGRES


@dataclass(frozen=True, slots=True)
class Restored:
    """The outcome. `has_replaced`: something that was there was moved aside. `is_authentic`: the maker had the passphrase."""

    manifest: Manifest
    proof: Proof
    has_replaced: bool
    is_authentic: bool


def restore_backup(archive: Path, to: Destination, step: Step) -> Restored:
    """Restores into an empty home and database. Raises BackupUnusable, HomeInUse, OSError and SQLAlchemyError.

    The whole archive is compared with its seal and hashes before anything is written. Where a later step fails, all is as it was.
    """
    with open_archive(archive) as opened:
        is_authentic = _authenticate(archive, opened, to)
        _refuse_mismatch(archive, opened.manifest, to)
        refuse_without_room(_needed_room(opened.manifest, to))
        opened.verify(step("checking the archive"))
        with _locked(to), tempfile.TemporaryDirectory(prefix=UNPACKED, dir=to.home) as folder:
            work = Path(folder)
            target = _target_for(to, work)
            is_occupied = _refuse_occupied(to, target)
            target.discard()  # of a restoration that was killed
            try:
                proof, has_differing = _restore(opened, to, target, work, step)
            finally:
                target.discard()
        return Restored(opened.manifest, proof, has_replaced=has_differing or is_occupied, is_authentic=is_authentic)


def _restore(opened: OpenArchive, to: Destination, target: SqliteTarget | PostgresTarget, work: Path, step: Step) -> tuple[Proof, bool]:
    """Returns the proof of the audit, and whether files of the home were moved aside."""
    manifest, part = opened.manifest, PART_OF[to.kind]
    opened.extract({name: target.staged if name == part else work / "parts" / name for name in manifest.part_names()}, step("unpacking"))
    files = _home_files_of(work / "parts", to)
    differing = _differing_files(to, files)
    if differing and not to.replaces:
        raise _occupied(to, differing[0])
    target.load(manifest.tables, step("restoring the database"))
    proof = _verify(target, manifest, work / "parts", step("verifying the audit"))
    if not proof.is_sound and not to.accepts_flaws:
        flaw = proof.flaws[0]
        raise BackupUnusable(
            f"the audit in the backup is not sound: {flaw.problem} ({flaw.chain} {flaw.seq}), and {len(proof.flaws) - 1} other flaws",
            "nothing was restored; use another backup, or --accept-flaws to have this one all the same",
        )
    new_paths = [to.home / name for name in files] + [to.home / to.replaced_name / name for name in differing]
    with remove_on_failure(missing_paths(new_paths)), undo_on_failure() as moves:
        _place_files(to, files, differing, moves)
        target.accept(moves)
    return proof, bool(differing)


def _authenticate(archive: Path, opened: OpenArchive, to: Destination) -> bool:
    """Returns whether the archive was sealed with the passphrase. Raises BackupUnusable where it was not, or the passphrase is missing."""
    if to.passphrase:
        if not opened.is_sealed:
            raise BackupUnusable(
                f"{archive} is not sealed with a passphrase, or its seal was removed",
                "use another backup, or restore one that was made without a passphrase without --passphrase-file",
            )
        if not opened.is_sealed_with(to.passphrase):
            raise BackupUnusable(
                f"the passphrase is not that of {archive}, or the backup was changed",
                "give the right --passphrase-file, or use another backup",
            )
        return True
    if ENCRYPTED_KEYS in opened.manifest.part_names():
        raise BackupUnusable(f"the keys in {archive} are encrypted", "give the file with their passphrase: --passphrase-file FILE")
    if opened.is_sealed and not to.accepts_flaws:
        raise BackupUnusable(
            f"{archive} is sealed with a passphrase, which was not given",
            "give its file: --passphrase-file FILE, or --accept-flaws restores it without proof of who made it",
        )
    return False


def _needed_room(manifest: Manifest, to: Destination) -> list[tuple[Path, int]]:
    """Returns how many bytes are unpacked into which folders."""
    path = sqlite_path(to.database_url)
    folder_of = {PART_OF[SQLITE]: path.parent} if path is not None else {}
    return [(folder_of.get(part.name, to.home.absolute()), part.size) for part in manifest.parts]


def _refuse_mismatch(archive: Path, manifest: Manifest, to: Destination) -> None:
    """Raises BackupUnusable for a backup of a newer version, or of the other kind of database."""
    if manifest.revision > HEAD:
        raise BackupUnusable(
            f"{archive} was made by version {manifest.version}, whose schema is {manifest.revision}; "
            f"this version knows {HEAD} and earlier ones",
            "restore it with that version or a newer one",
        )
    if manifest.database != to.kind:
        theirs, own = KINDS.get(manifest.database, manifest.database), KINDS[to.kind]
        raise BackupUnusable(
            f"{archive} has a database of {theirs}, and database.url is one of {own}", f"set database.url to one of {theirs}"
        )


@contextmanager
def _locked(to: Destination) -> Iterator[None]:
    """Makes the folders, and keeps gateways away from a SQLite file and its home. A failure removes what was made. Raises HomeInUse."""
    path = sqlite_path(to.database_url)
    folders = [to.home, *([] if path is None else [path.parent])]
    with remove_on_failure(missing_paths(folders)):
        for folder in folders:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with nullcontext() if path is None else _lock_both(to, path):
            yield


@contextmanager
def _lock_both(to: Destination, path: Path) -> Iterator[None]:
    """Locks the home and the SQLite file. A failure removes lock files that were made, while they are locked."""
    home_lock = missing_paths([to.home / HOME_LOCK])
    with lock_home(to.home), remove_on_failure(home_lock):
        file_lock = missing_paths([lock_path(path)])
        with lock_database_file(to.database_url, to.home) or nullcontext(), remove_on_failure(file_lock):
            for left_over in to.home.glob(f"{UNPACKED}*"):  # of a restoration that was killed
                shutil.rmtree(left_over)
            yield


def _target_for(to: Destination, work: Path) -> SqliteTarget | PostgresTarget:
    path = sqlite_path(to.database_url)
    if path is not None:
        return SqliteTarget(path, to.replaced_name)
    return PostgresTarget(to.database_url, PostgresTools(to.database_url, to.environment), work / "database.dump", to.replaced_name)


def _refuse_occupied(to: Destination, target: SqliteTarget | PostgresTarget) -> bool:
    """Returns whether there is a database already. Raises BackupUnusable for it, and for heads of an audit, if nothing may be replaced."""
    is_occupied = target.is_occupied()
    if not to.replaces and is_occupied:
        raise BackupUnusable("the database is not empty", "set database.url to an empty one, or --force moves aside what is there")
    present = [name for name in home_files.list_present(to.home, sqlite_path(to.database_url)) if not home_files.is_key(name)]
    if present and not to.replaces:
        raise _occupied(to, present[0])
    return is_occupied


def _occupied(to: Destination, name: str) -> BackupUnusable:
    return BackupUnusable(
        f"the home {to.home} is not empty: it has {name}", "set INTERLOCK_HOME to an empty folder, or --force moves aside what is there"
    )


def _home_files_of(parts: Path, to: Destination) -> dict[str, Path]:
    """Returns the unpacked files of the home by their path in it. Decrypts the keys. Raises BackupUnusable."""
    sealed = parts / ENCRYPTED_KEYS
    if sealed.exists():
        for name, data in unpack_keys(key_encryption.decrypt(sealed.read_bytes(), to.passphrase)).items():
            path = parts / SECRETS / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o600)
        sealed.unlink()
    folders = (parts / HOME, parts / SECRETS)
    return {path.relative_to(folder).as_posix(): path for folder in folders for path in folder.rglob("*") if path.is_file()}


def _differing_files(to: Destination, files: Mapping[str, Path]) -> list[str]:
    """Returns the files of the home that the backup has in another form, or not at all. Keys that are not in the backup may stay."""
    has_keys = any(map(home_files.is_key, files))
    present = home_files.list_present(to.home, sqlite_path(to.database_url))
    return [
        name
        for name in present
        if (has_keys or not home_files.is_key(name)) and (name not in files or (to.home / name).read_bytes() != files[name].read_bytes())
    ]


def _verify(target: SqliteTarget | PostgresTarget, manifest: Manifest, parts: Path, _report: Report) -> Proof:
    """Compares the database with the manifest, and verifies its audit. Raises BackupUnusable for another database."""
    try:
        keys = PublishedKeys(msgspec.json.decode((parts / PUBLIC_KEYS).read_bytes()))
    except (OSError, msgspec.MsgspecError, BadKeySet) as error:
        raise BackupUnusable(f"the backup has no public keys: {error}", USE_ANOTHER) from error
    with target.connect() as connection:
        reader = connection.execution_options(interlock_read=True)
        state = read_state(reader)
        if (state.revision, state.audit) != (manifest.revision, manifest.audit):
            raise BackupUnusable("the database in the backup is not that of its manifest", USE_ANOTHER)
        return verify_chains(read_rows(reader), read_heads(parts / HOME / home_files.HEADS), keys, allow_empty=not manifest.audit)


def _place_files(to: Destination, files: Mapping[str, Path], differing: list[str], moves: Moves) -> None:
    """Moves the files of the home aside that differ, then those of the backup to their places."""
    for name in differing:
        moves.move(to.home / name, to.home / to.replaced_name / name)
    for name, path in files.items():
        if not (to.home / name).is_file():  # else its content is the same
            moves.move(path, to.home / name)
