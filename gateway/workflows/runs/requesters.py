"""Requesters: the people who brought about a run that a service owns, and so do not approve in it.

They are who uploaded its document and the documents of the runs that it calls, who sent the event that started it, and who sent the events
that it listened for. All runs of one transaction have the same requesters. Other runs have none.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from gateway.events.starts import read_requesters
from gateway.storage.batch import Batch
from gateway.storage.tables import tasks
from gateway.workflows.runs.tables import IS_TASK_OF_RUN, workflow_runs, workflow_versions

_LOCK_ALL: Final = (
    "UPDATE workflow_runs SET requesters = requesters WHERE tenant = ? AND requesters <> '' "
    "AND id IN (SELECT id FROM tasks WHERE tasks.tenant = ? AND tasks.txn = ?)"
)
_SET: Final = "UPDATE workflow_runs SET requesters = ? WHERE tenant = ? AND id = ?"
_SET_OF_QUESTIONS: Final = "UPDATE workflow_checkpoints SET requesters = ? WHERE tenant = ? AND run_id = ? AND state = 'pending'"
_decode = msgspec.json.Decoder(tuple[str, ...]).decode


def requesters_of(connection: Connection, tenant: str, txn: str) -> tuple[str, ...]:
    """The requesters of a transaction, each as tenant|issuer|subject: of its runs, and of the trigger that began it."""
    begun_by = read_requesters(connection, tenant, txn) if txn else ""
    of_runs = (person for _, people in _runs_of(connection, tenant, txn) for person in people)
    return tuple(dict.fromkeys((*(_decode(begun_by) if begun_by else ()), *of_runs)))


def add_requesters(batch: Batch, tenant: str, txn: str, people: Iterable[str]) -> tuple[str, ...]:
    """Adds people to the requesters of all runs of a transaction, and of their open questions. Returns the requesters.

    Returns none where no service owns the runs, whose owner answers for them. No other commit adds any between this one and its end.
    """
    if not requesters_of(batch.connection, tenant, txn):
        return ()
    batch.run(_LOCK_ALL, (tenant, tenant, txn))
    everybody = tuple(dict.fromkeys((*requesters_of(batch.connection, tenant, txn), *filter(None, people))))
    for run_id, known in _runs_of(batch.connection, tenant, txn):
        if set(everybody) - set(known):
            text = encode_requesters(everybody)
            batch.run(_SET, (text, tenant, run_id))
            batch.run(_SET_OF_QUESTIONS, (text, tenant, run_id))
    return everybody


def inherit_requesters(batch: Batch, tenant: str, run_id: str, version: tuple[str, str]) -> None:
    """Gives a run that another one caused the requesters of their transaction, and makes the uploader of its version one of them.

    `version`: the name and the hash of the workflow.
    """
    txn, versions = txn_of(batch.connection, tenant, run_id), workflow_versions.c
    if requesters_of(batch.connection, tenant, txn):
        mine = (versions.tenant == tenant) & (versions.name == version[0]) & (versions.hash == version[1])
        author = batch.connection.execute(select(versions.author).where(mine)).scalar() or ""
        batch.run(_SET, (encode_requesters(add_requesters(batch, tenant, txn, (author,))), tenant, run_id))


def txn_of(connection: Connection, tenant: str, run_id: str) -> str:
    """The transaction of a run's task; empty for no task."""
    return connection.execute(select(tasks.c.txn).where(tasks.c.tenant == tenant, tasks.c.id == run_id)).scalar() or ""


def encode_requesters(people: tuple[str, ...]) -> str:
    """Requesters as columns have them: JSON, empty for none."""
    return msgspec.json.encode(people).decode() if people else ""


def _runs_of(connection: Connection, tenant: str, txn: str) -> list[tuple[str, tuple[str, ...]]]:
    """The runs of a transaction that have requesters."""
    query = select(workflow_runs.c.id, workflow_runs.c.requesters).select_from(tasks).join(workflow_runs, IS_TASK_OF_RUN)
    query = query.where(tasks.c.tenant == tenant, tasks.c.txn == txn, workflow_runs.c.requesters != "").order_by(workflow_runs.c.id)
    return [(row.id, _decode(row.requesters)) for row in connection.execute(query)] if txn else []
