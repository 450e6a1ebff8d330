"""The file of a backup: a compressed tar archive with a manifest first, which names every part with its size and hash, then its seal."""

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import msgspec

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
SEAL: Final = "manifest.seal"
COMPRESSION: Final = 1  # the fastest: a database with texts becomes about a fifth of its size
USE_ANOTHER: Final = "nothing was restored; use another backup"
Report = Callable[[int, int], None]  # bytes done, and bytes to do


class BackupUnusable(Exception):
    """A backup can't be made or restored. `todo` says what to do."""

    def __init__(self, problem: str, todo: str = "") -> None:
        super().__init__(problem)
        self.todo = todo


class BackupPart(msgspec.Struct, frozen=True):
    """A file of the archive. `is_secret`: it holds keys of the gateway."""

    name: str
    size: int
    sha256: str
    is_secret: bool = False
    is_encrypted: bool = False


class Manifest(msgspec.Struct, frozen=True):
    """What a backup is. `audit` has the last sequence number of each chain of the audit in the database."""

    format: int
    version: str  # of the gateway that made it
    created: str  # RFC 3339
    database: str  # sqlite | postgresql
    revision: str  # of the schema
    tables: int
    audit: dict[str, int]
    parts: list[BackupPart]
    keys: str  # included | encrypted | left out

    def part_names(self) -> set[str]:
        return {part.name for part in self.parts}


@dataclass(frozen=True, slots=True)
class PartSource:
    """A file that becomes a part."""

    name: str
    path: Path
    is_secret: bool = False
    is_encrypted: bool = False


def describe_parts(sources: Sequence[PartSource]) -> list[BackupPart]:
    """Reads every file for its size and hash."""
    return [BackupPart(each.name, each.path.stat().st_size, hash_of(each.path), each.is_secret, each.is_encrypted) for each in sources]


def hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encode_manifest(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2)


def write_archive(target: Path, manifest: Manifest, seal: bytes, sources: Sequence[PartSource], report: Report) -> None:
    """Writes the archive with mode 0600, whole or not at all, and synced; an empty `seal` is left out. Raises OSError."""
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    total, done = sum(part.size for part in manifest.parts), 0
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
            with (
                gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=COMPRESSION) as packed,
                tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT, encoding="utf-8") as tar,
            ):
                for name, data in ((MANIFEST, encode_manifest(manifest)), *([(SEAL, seal)] if seal else [])):
                    tar.addfile(_tar_info(name, len(data)), io.BytesIO(data))
                for source, part in zip(sources, manifest.parts, strict=True):
                    with source.path.open("rb") as file:
                        counted = _CountingReader(file, lambda count, done=done: report(done + count, total))  # type: ignore[misc]  # bound now
                        tar.addfile(_tar_info(part.name, part.size), counted)  # type: ignore[arg-type]  # only `read` is called
                    done += part.size
            raw.flush()
            os.fsync(raw.fileno())
        os.link(unfinished, target)  # fails where another process has made the file meanwhile
    finally:
        unfinished.unlink(missing_ok=True)


class _CountingReader:
    """A file that reports how many of its bytes were read."""

    def __init__(self, file: IO[bytes], report: Callable[[int], None]) -> None:
        self._file = file
        self._report = report

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._report(self._file.tell())
        return data


def _tar_info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info
