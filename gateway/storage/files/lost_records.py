"""Refuses a database that has lost the audit records whose signed heads are kept in `audit.heads`."""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, inspect, select

from gateway.storage.database_start import DatabaseUnusable, describe_location
from gateway.storage.files.database_file import sqlite_path
from policies.audit.heads import HEAD_JWT_TYPE, StatementVerifier, read_heads
from policies.tables import audit_records


def refuse_lost_records(engine: Engine, heads: Path, keys: StatementVerifier) -> int:
    """Raises DatabaseUnusable if `heads` names audit chains and the database has no record of any of them.

    If only newer chains are missing (an older backup was restored), returns how many.
    The newest chain is looked up first, so one query is usually enough. No database file is created.
    """
    missing = 0
    for chain in _signed_chains(heads, keys):
        if _has_chain(engine, chain):
            return missing
        missing += 1
    if missing:
        raise DatabaseUnusable(
            f"{describe_location(engine)} was lost, emptied or moved: it has no audit records, but {heads} proves that some were written",
            f"restore the database or correct database.url; to start without those records, move {heads} to another folder",
        )
    return 0


def _signed_chains(heads: Path, keys: StatementVerifier) -> Iterator[str]:
    """Yields each chain that has a head signed by this gateway's keys, the newest first."""
    seen = set()
    for line in reversed(read_heads(heads)):
        try:
            chain = str(keys.verify(line, HEAD_JWT_TYPE)["chain"])
        except (ValueError, LookupError):
            continue
        if chain not in seen:
            seen.add(chain)
            yield chain


def _has_chain(engine: Engine, chain: str) -> bool:
    file = sqlite_path(engine.url)
    if file is not None and (not file.exists() or not file.stat().st_size):
        return False
    with engine.connect() as connection:
        reader = connection.execution_options(interlock_read=True)
        if not inspect(reader).has_table(audit_records.name):
            return False
        return reader.execute(select(audit_records.c.seq).where(audit_records.c.chain == chain).limit(1)).first() is not None
