"""Signed heads of the audit chains, in a file beside the database: records that a signed head covers can't be removed unnoticed."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from policies.audit.log import ChainHead
from policies.keys.signing import SigningKeys

HEAD_JWT_TYPE = "interlock-audit-head+jwt"
COMPACT_AFTER = 3600  # lines, an hour of work
_DECODE_ERRORS = "surrogateescape"


class StatementVerifier(Protocol):
    """Verifies statements that the gateway signed: policies/keys/signing.py or policies/keys/published.py."""

    def verify(self, token: str, typ: str) -> Mapping[str, Any]:
        """Returns the claims of a token that a key of the gateway signed as `typ`. Raises ValueError for any other token."""
        ...


class HeadsFile:
    """A file with one signed head per line, appended and synced. Compaction keeps only the last head of each chain."""

    def __init__(self, path: Path, signer: SigningKeys, now: Callable[[], int]) -> None:
        self._path = path
        self._signer = signer
        self._now = now
        self._last_written: ChainHead | None = None
        self._lines = 0  # appended since the last compaction

    def write_head(self, head: ChainHead) -> str:
        """Signs and appends `head`, and returns the signed form. Returns an empty string where `head` is empty or was written last."""
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
        """Signs and appends a statement that no compaction drops, and returns the signed form."""
        signed = self._signer.sign(claims, typ)
        with self._lock():
            _append(self._path, signed.encode() + b"\n")
        return signed

    def compact(self) -> None:
        """Drops every head that a later head of the same chain supersedes, in whatever order they are.

        Keeps lines that can't be read and duplicate last heads of one chain: `verify` reports them.
        """
        self._lines = 0
        with self._lock():
            if not self._path.exists():
                return
            fresh = self._path.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            lines = self._without_superseded(_read(self._path).splitlines())
            _append(fresh, "".join(f"{line}\n" for line in lines).encode(errors=_DECODE_ERRORS))
            if (owner := self._path.stat().st_uid) != fresh.stat().st_uid:  # services may run without the system call
                os.chown(fresh, owner, -1)  # a compaction by another user must not lock the appending processes out
            fresh.replace(self._path)
            _sync_folder(self._path.parent)

    def _without_superseded(self, lines: Iterable[str]) -> list[str]:
        heads = {line: self._chain_position(line) for line in lines}
        last: dict[str, int] = {}
        for chain, seq in filter(None, heads.values()):
            last[chain] = max(seq, last.get(chain, seq))
        return [line for line, position in heads.items() if position is None or position[1] == last[position[0]]]

    def _chain_position(self, line: str) -> tuple[str, int] | None:
        """The chain and sequence number of a signed head; None for a line that is not a signed head."""
        try:
            claims = self._signer.verify(line, HEAD_JWT_TYPE)
            return str(claims["chain"]), int(claims["seq"])
        except (ValueError, LookupError, TypeError):
            return None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Locks the file against other processes: a compaction must not lose a line that another process appends."""
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _append(path: Path, line: bytes) -> None:
    """Appends all of `line` and syncs it, or appends nothing, since a torn line would look forged. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size_before = os.fstat(descriptor).st_size
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size_before)
            raise OSError(errno.ENOSPC, "no room for a head of the audit", str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Syncs the folder, so that a crash can't undo the replacement of a file that lines are appended to from now on."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_heads(path: Path) -> list[str]:
    """The signed heads of a file; none when there is no file."""
    return _read(path).split() if path.exists() else []


def _read(path: Path) -> str:
    """Reads the file; bytes that are not UTF-8 become surrogates, so that foreign content does not hide the heads."""
    return path.read_text(errors=_DECODE_ERRORS)
