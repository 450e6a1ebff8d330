"""The file of a backup: a compressed tar archive with a manifest first, which names every part with its size and hash."""

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

import msgspec

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
MANIFEST_MAX: Final = 4 << 20  # bytes
COMPRESSION: Final = 1  # the fastest: a database with texts becomes about a fifth of its size
CHUNK: Final = 1 << 20
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


def write_archive(target: Path, manifest: Manifest, sources: Sequence[PartSource], report: Report) -> None:
    """Writes the archive with mode 0600, whole or not at all, and synced. Raises FileExistsError and OSError."""
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    total, done = sum(part.size for part in manifest.parts), 0
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
            with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=COMPRESSION) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
                _add_bytes(tar, MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2))
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


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    tar.addfile(_tar_info(name, len(data)), io.BytesIO(data))


@contextmanager
def open_archive(path: Path) -> Iterator["OpenArchive"]:
    """Opens a backup and reads its manifest. Raises BackupUnusable for a file that is none, was cut off or is of a later form."""
    try:
        with path.open("rb") as raw, gzip.open(raw) as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
            yield OpenArchive(path, tar)
    except (gzip.BadGzipFile, EOFError, tarfile.TarError, zlib.error) as error:
        raise BackupUnusable(f"{path} can't be read: it is damaged, cut off, or not a backup", "use another backup") from error


class OpenArchive:
    """A backup whose manifest was read. Its parts are read once, in their order."""

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        """Raises BackupUnusable."""
        self._path = path
        self._tar = tar
        self.manifest = self._read_manifest()

    def extract(self, place_of: Mapping[str, Path], report: Report) -> None:
        """Writes the parts to their places, with mode 0600. Raises BackupUnusable for a missing, unnamed or changed part."""
        parts, done, total = {part.name: part for part in self.manifest.parts}, 0, sum(part.size for part in self.manifest.parts)
        while (member := self._tar.next()) is not None:
            part = parts.pop(member.name, None)
            if part is None or not member.isreg() or member.size != part.size:
                raise self._damaged(member.name)
            file = self._tar.extractfile(member)
            if file is None or _copy(file, place_of[part.name], lambda count: report(done + count, total)) != part.sha256:  # noqa: B023 (called at once)
                raise self._damaged(member.name)
            done += part.size
        if parts:
            raise self._damaged(min(parts))

    def _read_manifest(self) -> Manifest:
        member = self._tar.next()
        file = self._tar.extractfile(member) if member is not None and member.name == MANIFEST and member.size <= MANIFEST_MAX else None
        if file is None:
            raise BackupUnusable(f"{self._path} is not a backup of the gateway", "name a file that interlock backup has written")
        try:
            manifest = msgspec.json.decode(file.read(), type=Manifest)
        except msgspec.MsgspecError as error:
            raise self._damaged(MANIFEST) from error
        if manifest.format > FORMAT:
            raise BackupUnusable(
                f"{self._path} was made by the newer version {manifest.version}", "restore it with that version or a newer one"
            )
        if len(manifest.part_names()) != len(manifest.parts) or not all(map(_is_safe, manifest.part_names())):
            raise self._damaged(MANIFEST)
        return manifest

    def _damaged(self, name: str) -> BackupUnusable:
        return BackupUnusable(f"{self._path} is damaged or was changed: {name[:200]}", "nothing was restored; use another backup")


def _is_safe(name: str) -> bool:
    """Whether a name leads to a file below the folder that it is extracted to."""
    path = PurePosixPath(name)
    return str(path) == name and not path.is_absolute() and ".." not in path.parts and "\0" not in name and name not in (".", MANIFEST)


def _copy(source: IO[bytes], target: Path, report: Callable[[int], None]) -> str:
    """Returns the sha256 of what was written."""
    digest, count = hashlib.sha256(), 0
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while chunk := source.read(CHUNK):
            file.write(chunk)
            digest.update(chunk)
            count += len(chunk)
            report(count)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
