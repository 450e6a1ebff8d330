"""Signed heads of the audit chains, kept in a file beside the database: what was signed can't be cut off unseen."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from policies.audit.log import ChainHead

HEAD_JWT_TYPE = "interlock-audit-head+jwt"
COMPACT_AFTER = 3600  # lines, an hour of work
_DECODE_ERRORS = "surrogateescape"


class StatementVerifier(Protocol):
    """policies/keys/signing.py, or policies/keys/published.py."""

    def verify(self, token: str, typ: str) -> Mapping[str, Any]:
        """What a key of the gateway signed as `typ`. Raises ValueError for all else."""
        ...


class StatementSigner(StatementVerifier, Protocol):
    """policies/keys/signing.py."""

    def sign(self, claims: Mapping[str, Any], typ: str) -> str: ...


class HeadsFile:
    """One signed head a line, appended and synced; now and then only the last of each chain is kept."""

    def __init__(self, path: Path, signer: StatementSigner, now: Callable[[], int]) -> None:
        self._path = path
        self._signer = signer
        self._now = now
        self._last_written: ChainHead | None = None
        self._lines = 0  # appended since the last compaction

    def write_head(self, head: ChainHead) -> str:
        """Signs and writes `head` unless it is already the last one; returns the signed form, or nothing."""
        if head.seq == 0 or head == self._last_written:
            return ""
        claims = {"chain": head.chain, "seq": head.seq, "hash": head.hash, "at": self._now()}
        signed = self._signer.sign(claims, HEAD_JWT_TYPE)
        with self._lock():
            _append(self._path, signed.encode() + b"\n")
        self._last_written = head
        self._lines += 1
        if self._lines >= COMPACT_AFTER:
            self.compact()
        return signed

    def write_statement(self, claims: Mapping[str, Any], typ: str) -> str:
        """Signs and writes another statement, which no compaction drops; returns the signed form."""
        signed = self._signer.sign(claims, typ)
        with self._lock():
            _append(self._path, signed.encode() + b"\n")
        return signed

    def compact(self) -> None:
        """Drops the heads that a later one of the same chain makes needless, in whatever order they stand.

        A line that can't be read is left for `verify` to find, and so are two last heads of one chain.
        """
        self._lines = 0
        with self._lock():
            if not self._path.exists():
                return
            fresh = self._path.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            lines = self._without_superseded(_read(self._path).splitlines())
            _append(fresh, "".join(f"{line}\n" for line in lines).encode(errors=_DECODE_ERRORS))
            os.chown(fresh, self._path.stat().st_uid, -1)  # whoever compacts, those who append have to be able to go on
            fresh.replace(self._path)
            _sync_folder(self._path.parent)

    def _without_superseded(self, lines: Iterable[str]) -> list[str]:
        heads = {line: self._chain_position(line) for line in lines}
        last: dict[str, int] = {}
        for chain, seq in filter(None, heads.values()):
            last[chain] = max(seq, last.get(chain, seq))
        return [line for line, position in heads.items() if position is None or position[1] == last[position[0]]]

    def _chain_position(self, line: str) -> tuple[str, int] | None:
        """Chain and number of a signed head; None for what is none."""
        try:
            claims = self._signer.verify(line, HEAD_JWT_TYPE)
            return str(claims["chain"]), int(claims["seq"])
        except (ValueError, LookupError, TypeError):
            return None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Several processes may share the file; one that compacts must not lose what another appends."""
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _append(path: Path, line: bytes) -> None:
    """All of `line`, durably, or nothing: a torn line would look like a forged one. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, before)
            raise OSError(errno.ENOSPC, "no room for a head of the audit", str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """What is appended from now on must not be in a file that a crash takes out of the folder again."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_heads(path: Path) -> list[str]:
    """The signed heads of a file; none when there is no file."""
    return _read(path).split() if path.exists() else []


def _read(path: Path) -> str:
    """Whatever bytes somebody or something else left there are no head, and no reason to read none."""
    return path.read_text(errors=_DECODE_ERRORS)
