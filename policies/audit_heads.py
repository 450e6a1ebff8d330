"""Signed heads of the audit chains, kept in a file beside the database: what was signed can't be cut off unseen."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from policies.audit import Head

TYPE = "interlock-audit-head+jwt"


class Signer(Protocol):
    """policies/keys.py."""

    def sign(self, claims: Mapping[str, Any], typ: str) -> str: ...

    def verify(self, token: str, typ: str) -> Mapping[str, Any]: ...


class HeadsFile:
    """One signed head a line, appended and synced; at opening only the last of each chain is kept."""

    def __init__(self, path: Path, signer: Signer, now: Callable[[], int]) -> None:
        self._path = path
        self._signer = signer
        self._now = now
        self._written: Head | None = None

    def keep(self, head: Head) -> str:
        """Signs and writes `head` unless it is already the last one; returns the signed form, or nothing."""
        if head.seq == 0 or head == self._written:
            return ""
        claims = {"chain": head.chain, "seq": head.seq, "hash": head.hash, "at": self._now()}
        signed = self._signer.sign(claims, TYPE)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, signed.encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._written = head
        return signed

    def compact(self) -> None:
        """Drops the heads that a later one of the same chain makes needless. A line that can't be read is left for `verify` to find."""
        if not self._path.exists():
            return
        last: dict[str, str] = {}
        for number, line in enumerate(self._path.read_text().splitlines()):
            try:
                last[str(self._signer.verify(line, TYPE)["chain"])] = line
            except ValueError:
                last[f"line {number}"] = line
        fresh = self._path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text("".join(f"{line}\n" for line in last.values()))
        fresh.replace(self._path)


def read_heads(path: Path) -> list[str]:
    """The signed heads of a file; none when there is no file."""
    return path.read_text().split() if path.exists() else []
