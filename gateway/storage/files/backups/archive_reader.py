"""Reads the file of a backup, which may be damaged or come from an attacker: nothing in it is believed before it was compared."""

import gzip
import hashlib
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Final, Self

import msgspec

from gateway.storage.files.backups.archive import FORMAT, MANIFEST, SEAL, USE_ANOTHER, BackupUnusable, Manifest, Report
from gateway.storage.files.backups.manifest_seal import is_sealed_with
from gateway.storage.files.backups.part_names import unknown_part

MANIFEST_MAX: Final = 4 << 20  # bytes
SMALL_MAX: Final = 8192  # bytes of a seal, or of a long name
CHUNK: Final = 1 << 20
DAMAGES: Final = (gzip.BadGzipFile, EOFError, tarfile.TarError, zlib.error)


@contextmanager
def open_archive(path: Path) -> Iterator["OpenArchive"]:
    """Opens a backup and reads its manifest. Raises BackupUnusable for a file that is none, was cut off or is of a later form."""
    with path.open("rb") as raw:
        yield OpenArchive(path, raw)


class _Member(tarfile.TarInfo):
    """A header of a member: of a regular file, or of its long name. Others are refused: tarfile would read them into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Raises TarError."""
        member = super().frombuf(buf, encoding, errors)
        if member.type != tarfile.REGTYPE and (member.type != tarfile.GNUTYPE_LONGNAME or member.size > SMALL_MAX):
            raise tarfile.TarError("a member of a type that no backup has")
        return member


class OpenArchive:
    """A backup whose manifest was read. Its parts can be read more than once."""

    def __init__(self, path: Path, raw: IO[bytes]) -> None:
        """Raises BackupUnusable."""
        self._path = path
        self._raw = raw
        with self._open_tar() as tar:
            self._encoded = self._read_small(tar, tar.next(), MANIFEST, MANIFEST_MAX) or b""
            self.manifest = self._decode_manifest()
            self._seal = self._read_small(tar, tar.next(), SEAL, SMALL_MAX)

    @property
    def is_sealed(self) -> bool:
        return self._seal is not None

    def is_sealed_with(self, passphrase: str) -> bool:
        """Whether the manifest, and with it each part, comes from an owner of the passphrase. Takes half a second."""
        return self._seal is not None and is_sealed_with(self._encoded, self._seal, passphrase)

    def verify(self, report: Report) -> None:
        """Reads the whole archive and writes nothing. Raises BackupUnusable for a missing, unnamed or changed part."""
        self._read_parts({}, report)

    def extract(self, place_of: Mapping[str, Path], report: Report) -> None:
        """Writes all parts to their places, with mode 0600. Raises BackupUnusable for a missing, unnamed or changed part."""
        self._read_parts(place_of, report)

    def _read_parts(self, place_of: Mapping[str, Path], report: Report) -> None:
        parts, done, total = {part.name: part for part in self.manifest.parts}, 0, sum(part.size for part in self.manifest.parts)
        with self._open_tar() as tar:
            for _ in range(1 + self.is_sealed):
                tar.next()
            while (member := tar.next()) is not None:
                part = parts.pop(member.name, None)
                file = tar.extractfile(member)
                if part is None or file is None or member.size != part.size:
                    raise self._damage_error(member.name)
                if _copy(file, place_of.get(part.name), lambda count: report(done + count, total)) != part.sha256:  # noqa: B023 (called at once)
                    raise self._damage_error(member.name)
                done += part.size
        if parts:
            raise self._damage_error(min(parts))

    @contextmanager
    def _open_tar(self) -> Iterator[tarfile.TarFile]:
        self._raw.seek(0)
        try:
            with (
                gzip.GzipFile(fileobj=self._raw, mode="rb") as packed,
                tarfile.open(fileobj=packed, mode="r|", tarinfo=_Member, encoding="utf-8") as tar,
            ):
                yield tar
        except DAMAGES as error:
            raise BackupUnusable(f"{self._path} can't be read: it is damaged, cut off, or not a backup", "use another backup") from error

    def _read_small(self, tar: tarfile.TarFile, member: tarfile.TarInfo | None, name: str, limit: int) -> bytes | None:
        """Returns the content of a member, or None if it has another name or is too large."""
        file = tar.extractfile(member) if member is not None and member.name == name and member.size <= limit else None
        return None if file is None else file.read()

    def _decode_manifest(self) -> Manifest:
        if not self._encoded:
            raise BackupUnusable(f"{self._path} is not a backup of the gateway", "name a file that interlock backup has written")
        try:
            manifest = msgspec.json.decode(self._encoded, type=Manifest)
        except msgspec.MsgspecError as error:
            raise self._damage_error(MANIFEST) from error
        if manifest.format > FORMAT:
            raise BackupUnusable(
                f"{self._path} was made by the newer version {manifest.version}", "restore it with that version or a newer one"
            )
        if (unknown := unknown_part(manifest)) is not None:
            raise self._damage_error(unknown)
        return manifest

    def _damage_error(self, name: str) -> BackupUnusable:
        return BackupUnusable(f"{self._path} is damaged or was changed: {name[:200]}", USE_ANOTHER)


def _copy(source: IO[bytes], target: Path | None, report: Callable[[int], None]) -> str:
    """Returns the sha256 of what was read. Without a target nothing is written."""
    digest, count = hashlib.sha256(), 0
    with nullcontext() if target is None else _new_file(target) as file:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            count += len(chunk)
            if file is not None:
                file.write(chunk)
            report(count)
    return digest.hexdigest()


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
