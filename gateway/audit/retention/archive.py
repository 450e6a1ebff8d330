"""The archive: files that hold the rows of deleted tasks, one JSON document per line."""

import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from sqlalchemy import Connection

from gateway.audit.retention.task_rows import read_rows
from gateway.audit.retention.terms import ArchiveUnwritable


class ArchivedPart(NamedTuple):
    """What was appended to a file: `digest` is the sha256 of these lines, in hex."""

    file: str
    digest: str
    lines: int


class TaskArchive:
    """Appends to one file per tenant and day. A file is only readable by the gateway's own user."""

    def __init__(self, folder: Path, process: str) -> None:
        """`process` is part of the files' names, so that no two processes append to the same one."""
        self._folder = folder
        self._process = process

    def append(self, connection: Connection, tenant: str, task_ids: Sequence[str], now: int) -> ArchivedPart:
        """Writes all rows of the tasks, and returns once the file is on the disk. Raises ArchiveUnwritable."""
        try:
            return self._append(connection, tenant, task_ids, now)
        except OSError as error:
            raise ArchiveUnwritable(f"retention.archive can't be written: {error.strerror}; nothing was deleted") from error

    def _append(self, connection: Connection, tenant: str, task_ids: Sequence[str], now: int) -> ArchivedPart:
        day = datetime.fromtimestamp(now / 1e6, UTC).date().isoformat()
        path = self._folder / f"tenant-{quote(tenant, safe='')}" / f"tasks-{day}-{self._process}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        digest, lines = hashlib.sha256(), 0
        path.touch(mode=0o600)
        with path.open("ab") as target:
            for task_id in task_ids:
                for table, row in read_rows(connection, tenant, task_id):
                    line = json.dumps({"table": table, "row": row}, ensure_ascii=False).encode() + b"\n"
                    digest.update(line)
                    target.write(line)
                    lines += 1
            target.flush()
            os.fsync(target.fileno())
        return ArchivedPart(str(path.relative_to(self._folder)), digest.hexdigest(), lines)
