"""The spool: what was done to reduce authority while no record of it could be kept, in a file, until the database takes it."""

import asyncio
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import structlog
from sqlalchemy import select

from gateway.storage.database import Batch, Database, bump
from policies.audit.log import Audit
from policies.delegation.grants import Grants
from policies.delegation.kills import Kill, Kills
from policies.tables import audit as audit_table

NAME = "reductions.spool"
SPOOL_SECONDS = 1.0
AT_ONCE = 500  # records of one commit
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
log = structlog.get_logger()


class Spool:
    """One audit record a line, synced before the act goes on. Cancellations, revocations and kills only: nobody gains anything by them.

    Processes that share a home share the file, and whoever reaches the database first empties it.
    """

    def __init__(self, home: Path, audit: Audit, grants: Grants, kills: Kills) -> None:
        self._path = home / NAME
        self._audit = audit
        self._grants = grants
        self._kills = kills
        for record in self._records():  # their ends are still to be kept
            self._heed(record)

    async def put(self, record: Mapping[str, Any]) -> None:
        """Keeps a record of `kind` decision, revocation or kill, with `at`; the latter two hold here from now on."""
        await asyncio.to_thread(self._append, record)
        self._heed(record)
        log.warning("act_spooled", kind=record["kind"], task_id=record.get("task_id", ""))

    async def drain(self, database: Database) -> int:
        """Moves all into the database, each record once; returns how many there were. Raises NotKept."""
        if not self._path.exists():
            return 0
        records = self._records()
        for first in range(0, len(records), AT_ONCE):
            some = records[first : first + AT_ONCE]
            await database.write(lambda batch, some=some: self._keep_all(batch, some))  # type: ignore[misc]  # bound now
        await asyncio.to_thread(self._drop, records)
        for record in records:
            self._kept(record)
        log.info("spool_kept", count=len(records))
        return len(records)

    def keep(self, batch: Batch, record: Mapping[str, Any]) -> None:
        """Keeps a record that is not kept yet, with what follows from it."""
        if record["kind"] == "revocation":
            if not self._grants.end(batch, record["tenant"], record["grant_id"], record["at"]):
                return
            bump(batch, "grants")
        elif record["kind"] == "kill":
            if not self._kills.keep(batch, kill_of(record)):
                return
            if record["target"]["kind"] == "user":
                _silence(batch, record["target"]["name"])
            bump(batch, "kills")
        elif _known(batch, record["decision_id"]):
            return
        self._audit.append(batch, record)

    def _keep_all(self, batch: Batch, records: list[dict[str, Any]]) -> None:
        for record in records:
            self.keep(batch, {**record, "spooled": True})

    def _heed(self, record: Mapping[str, Any]) -> None:
        if record["kind"] == "revocation":
            self._grants.refuse(record["tenant"], record["grant_id"])
        elif record["kind"] == "kill":
            self._kills.refuse(kill_of(record))

    def _kept(self, record: Mapping[str, Any]) -> None:
        if record["kind"] == "kill":
            self._kills.heed(kill_of(record))
            return
        self._grants.forget(record["tenant"], record.get("grant_id", ""))
        self._grants.heed(record["tenant"], record.get("grant_id", ""))

    def _append(self, record: Mapping[str, Any]) -> None:
        with self._alone() as file:
            os.lseek(file, 0, os.SEEK_END)
            os.write(file, _encode(record) + b"\n")
            os.fsync(file)

    def _records(self) -> list[dict[str, Any]]:
        """A line that was cut by the end of a process was never answered, and is passed over."""
        if not self._path.exists():
            return []
        with self._alone() as file:
            return list(_read(os.pread(file, os.fstat(file).st_size, 0)))

    def _drop(self, records: list[dict[str, Any]]) -> None:
        """Takes these away; what came after them stays, and what another process took away is gone already."""
        done = {_encode(record) for record in records}
        with self._alone() as file:
            raw = os.pread(file, os.fstat(file).st_size, 0)
            rest = [record for record in _read(raw) if _encode(record) not in done]
            if not rest:
                self._path.unlink(missing_ok=True)
                return
            fresh = b"".join(_encode(record) + b"\n" for record in rest)
            os.pwrite(file, fresh, 0)
            os.ftruncate(file, len(fresh))
            os.fsync(file)

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """The file, for nobody else meanwhile."""
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_still(file, self._path):
                break
            os.close(file)
        try:
            yield file
        finally:
            os.close(file)


def kill_of(record: Mapping[str, Any]) -> Kill:
    """What an audit record of a kill is about."""
    target, by = record["target"], record["principal"]
    whose = f"{record['tenant']}|{by['issuer']}|{by['subject']}"
    return Kill(record["tenant"], record["kill_id"], target["kind"], target["name"], record["reason"], whose, record["at"])


def _silence(batch: Batch, owner: str) -> None:
    """The webhooks of a person who is stopped are told nothing more."""
    whose = "EXISTS (SELECT 1 FROM push_configs c WHERE c.tenant = deliveries.tenant AND c.task_id = deliveries.task_id"
    whose += " AND c.id = deliveries.config_id AND c.owner = ?)"
    dead = "UPDATE deliveries SET state = 'dead', reason = 'its owner was stopped' WHERE state = 'pending' AND "
    batch.run(dead + whose, (owner,))
    batch.run("UPDATE push_configs SET live = 0 WHERE owner = ? AND live = 1", (owner,))


def _is_still(file: int, path: Path) -> bool:
    """Whether the path names this very file: another process may have emptied it away meanwhile."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _read(raw: bytes) -> Iterator[dict[str, Any]]:
    for line in raw.splitlines():
        try:
            yield _decode(line)
        except msgspec.DecodeError:
            log.error("spool_line_unreadable", size=len(line))


def _known(batch: Batch, decision_id: str) -> bool:
    query = select(audit_table.c.seq).where(audit_table.c.decision_id == decision_id).limit(1)
    return batch.connection.execute(query).first() is not None
