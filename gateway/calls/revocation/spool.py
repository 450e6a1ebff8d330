"""The spool: a file of cancellations, revocations and kills that the database has not accepted yet."""

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

from gateway.events.own_types import KILL_SET
from gateway.events.recorder import NO_EVENTS, EventRecorder
from gateway.storage.database import Batch, Database, raise_epoch
from policies.audit.log import AuditLog
from policies.delegation.grants import Grants
from policies.delegation.kills import Kill, Kills
from policies.tables import audit_records as audit_table

FILE_NAME = "reductions.spool"
SPOOL_SECONDS = 1.0
BATCH_SIZE = 500  # records of one commit
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
log = structlog.get_logger()


class Spool:
    """Stores one audit record per line and syncs it before the act continues.

    Only cancellations, revocations and kills are spooled, since they only reduce authority. Processes that share a home share the file;
    the first one that reaches the database empties it.
    """

    def __init__(self, home: Path, audit: AuditLog, grants: Grants, kills: Kills, recorder: EventRecorder = NO_EVENTS) -> None:
        self._recorder = recorder
        self._path = home / FILE_NAME
        self._audit = audit
        self._grants = grants
        self._kills = kills
        for record in self._read_records():  # in force, though not in the database yet
            self._enforce(record)

    async def spool_record(self, record: Mapping[str, Any]) -> None:
        """Stores a record of the kind decision, revocation or kill, with `at`. A revocation or kill takes effect here at once."""
        await asyncio.to_thread(self._append_to_file, record)
        self._enforce(record)
        log.warning("act_spooled", kind=record["kind"], task_id=record.get("task_id", ""))

    async def drain(self, database: Database) -> int:
        """Moves all records to the database, each once, and returns how many. Raises WriteFailed."""
        if not self._path.exists():
            return 0
        records = self._read_records()
        for first in range(0, len(records), BATCH_SIZE):
            some = records[first : first + BATCH_SIZE]
            await database.write(lambda batch, some=some: self._write_all(batch, some))  # type: ignore[misc]  # bound now
        await asyncio.to_thread(self._remove_records, records)
        for record in records:
            self._confirm_persisted(record)
        log.info("spool_drained", count=len(records))
        return len(records)

    def write(self, batch: Batch, record: Mapping[str, Any]) -> None:
        """Writes the record and its effects to the database, unless they are there already."""
        if record["kind"] == "revocation":
            if not self._grants.revoke(batch, record["tenant"], record["grant_id"], record["at"]):
                return
            raise_epoch(batch, "grants")
        elif record["kind"] == "kill":
            if not self._kills.write(batch, kill_from_record(record)):
                return
            if record["target"]["kind"] == "user":
                _disable_webhooks(batch, record["target"]["name"])
            raise_epoch(batch, "kills")
            record_kill(batch, self._recorder, KILL_SET, record)
        elif _is_recorded(batch, record["decision_id"]):
            return
        self._audit.record(batch, record)

    def _write_all(self, batch: Batch, records: list[dict[str, Any]]) -> None:
        for record in records:
            self.write(batch, {**record, "spooled": True})

    def _enforce(self, record: Mapping[str, Any]) -> None:
        if record["kind"] == "revocation":
            self._grants.enforce_before_persisted(record["tenant"], record["grant_id"])
        elif record["kind"] == "kill":
            self._kills.enforce_before_persisted(kill_from_record(record))

    def _confirm_persisted(self, record: Mapping[str, Any]) -> None:
        if record["kind"] == "kill":
            self._kills.confirm_persisted(kill_from_record(record))
            return
        self._grants.invalidate(record["tenant"], record.get("grant_id", ""))
        self._grants.confirm_persisted(record["tenant"], record.get("grant_id", ""))

    def _append_to_file(self, record: Mapping[str, Any]) -> None:
        with self._locked_file() as file:
            os.lseek(file, 0, os.SEEK_END)
            os.write(file, _encode(record) + b"\n")
            os.fsync(file)

    def _read_records(self) -> list[dict[str, Any]]:
        """Returns the complete records. A line cut off by the end of a process was never confirmed to a caller, so it is skipped."""
        if not self._path.exists():
            return []
        with self._locked_file() as file:
            return list(_parse_lines(os.pread(file, os.fstat(file).st_size, 0)))

    def _remove_records(self, records: list[dict[str, Any]]) -> None:
        """Removes these records from the file. Later records stay; records that another process removed are gone already."""
        done = {_encode(record) for record in records}
        with self._locked_file() as file:
            raw = os.pread(file, os.fstat(file).st_size, 0)
            rest = [record for record in _parse_lines(raw) if _encode(record) not in done]
            if not rest:
                self._path.unlink(missing_ok=True)
                return
            fresh = b"".join(_encode(record) + b"\n" for record in rest)
            os.pwrite(file, fresh, 0)
            os.ftruncate(file, len(fresh))
            os.fsync(file)

    @contextmanager
    def _locked_file(self) -> Iterator[int]:
        """Yields the file under an exclusive lock."""
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_same_file(file, self._path):
                break
            os.close(file)
        try:
            yield file
        finally:
            os.close(file)


def kill_from_record(record: Mapping[str, Any]) -> Kill:
    """Returns the kill that an audit record describes."""
    target, by = record["target"], record["principal"]
    whose = f"{record['tenant']}|{by['issuer']}|{by['subject']}"
    return Kill(record["tenant"], record["kill_id"], target["kind"], target["name"], record["reason"], whose, record["at"])


def record_kill(batch: Batch, recorder: EventRecorder, kind: str, record: Mapping[str, Any]) -> None:
    """Records the event that a kill was set or lifted, as its audit record says, where anything waits for it."""
    if recorder.wants(record["tenant"], kind):
        target = record["target"]
        data = {"kill": record["kill_id"], "kind": target["kind"], "name": target["name"], "reason": record["reason"]}
        recorder.record_event(batch, record["tenant"], kind, f"{target['kind']}/{target['name']}", data)


def _disable_webhooks(batch: Batch, owner: str) -> None:
    """Disables the webhooks of a killed user and their pending deliveries."""
    whose = "EXISTS (SELECT 1 FROM push_configs c WHERE c.tenant = deliveries.tenant AND c.task_id = deliveries.task_id"
    whose += " AND c.id = deliveries.config_id AND c.owner = ?)"
    dead = "UPDATE deliveries SET state = 'dead', reason = 'its owner was stopped' WHERE state = 'pending' AND "
    batch.run(dead + whose, (owner,))
    batch.run("UPDATE push_configs SET live = 0 WHERE owner = ? AND live = 1", (owner,))


def _is_same_file(file: int, path: Path) -> bool:
    """Returns whether the path still names this file: another process may have removed it."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _parse_lines(raw: bytes) -> Iterator[dict[str, Any]]:
    for line in raw.splitlines():
        try:
            yield _decode(line)
        except msgspec.DecodeError:
            log.error("spool_line_unreadable", size=len(line))


def _is_recorded(batch: Batch, decision_id: str) -> bool:
    query = select(audit_table.c.seq).where(audit_table.c.decision_id == decision_id).limit(1)
    return batch.connection.execute(query).first() is not None
