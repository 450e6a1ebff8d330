"""The files of the home folder that a backup has: keys, heads and archives of the audit, the spool; not what each start creates."""

import fcntl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

from gateway.storage.files.data_folder import DATABASE_FILE
from gateway.storage.files.database_file import LOCK_SUFFIX
from policies.audit.heads import HEAD_JWT_TYPE, StatementVerifier, read_heads

HEADS: Final = "audit.heads"
SPOOL: Final = "reductions.spool"
KEYS: Final = "keys"
READ_APART: Final = frozenset({SPOOL, HEADS})
LEFT_OUT: Final = frozenset({"metrics", "sandbox", "lock", "serving.json", *READ_APART})  # in the home
UNFINISHED: Final = (LOCK_SUFFIX, ".new", ".part")
REPLACED: Final = "replaced-"  # folders of files that a restoration with --force has moved away
PREFIXES_LEFT_OUT: Final = (DATABASE_FILE, REPLACED, "interlock-backup-")


def read_keys(home: Path) -> dict[str, bytes]:
    """Returns the content of each key file by its path in the home, without files deleted in between. Raises OSError."""
    found = {}
    for path in _paths(home):
        name = path.relative_to(home).as_posix()
        if is_key(name):
            with suppress(FileNotFoundError):
                found[name] = path.read_bytes()
    return found


def list_other_files(home: Path, database: Path | None) -> list[Path]:
    """Returns the files that are neither keys, heads nor spool: archives of the audit, and what operators keep there."""
    return [path for path in _paths(home) if not is_key(path.relative_to(home).as_posix()) and not is_of_database(path, database)]


def list_present(home: Path, database: Path | None) -> list[str]:
    """Returns the paths in a home of all files that a backup would have."""
    if not home.is_dir():
        return []
    own = [home / name for name in READ_APART if (home / name).exists()]
    paths = [*own, *(path for path in _paths(home) if not is_of_database(path, database))]
    return sorted(path.relative_to(home).as_posix() for path in paths)


def is_key(name: str) -> bool:
    """Whether a path in the home is that of a secret or retired key."""
    return name.startswith(f"{KEYS}/")


def is_backed_up(name: str) -> bool:
    """Whether a backup has the file with this path in the home, apart from those that are read by themselves."""
    steps = PurePosixPath(name).parts
    is_left_out = steps[0] in LEFT_OUT or steps[0].startswith(PREFIXES_LEFT_OUT) or any(step.startswith(".") for step in steps)
    return not is_left_out and not name.endswith(UNFINISHED) and steps[-1] != "lock"


def _paths(home: Path) -> Iterator[Path]:
    for path in sorted(home.rglob("*")):
        if is_backed_up(path.relative_to(home).as_posix()) and path.is_file():
            yield path


def is_of_database(path: Path, database: Path | None) -> bool:
    """Whether a file is the SQLite database, its write-ahead log or its lock."""
    return database is not None and path.parent.resolve() == database.parent and path.name.startswith(database.name)


def read_spool(home: Path) -> bytes:
    """Returns the complete content of the spool, which another process may be writing to."""
    try:
        with (home / SPOOL).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return file.read()
    except FileNotFoundError:
        return b""


def merge_lines(before: bytes, after: bytes) -> bytes:
    """Joins two readings of the spool. The start writes a record only once, even if the database has it already."""
    first = before.splitlines(keepends=True)
    return b"".join([*first, *(line for line in after.splitlines(keepends=True) if line not in first)])


def heads_at(before: Iterable[str], home: Path, last_seqs: Mapping[str, int], keys: StatementVerifier) -> list[str]:
    """Returns the lines of `audit.heads` that are about records in the database of the backup.

    All heads read `before` its moment are: a record is durable before it is signed. Of later ones those count that name a record which the
    database has, so that chains that began during the backup have a head too, and statements of cuts.
    """
    known = list(dict.fromkeys(before))
    return known + [line for line in read_heads(home / HEADS) if line not in known and _is_covered(line, last_seqs, keys)]


def _is_covered(line: str, last_seqs: Mapping[str, int], keys: StatementVerifier) -> bool:
    try:
        claims = keys.verify(line, HEAD_JWT_TYPE)
        return int(claims["seq"]) <= last_seqs.get(str(claims["chain"]), 0)
    except (ValueError, LookupError, TypeError):
        return True
