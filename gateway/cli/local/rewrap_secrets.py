"""After a change of the vault's keys: every secret in the database is wrapped anew. What is inside of the envelopes is not touched."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Engine, Row, Table, select, update

from gateway.calls.consent.account_connections import place_of
from gateway.storage.tables import connections, push_configs
from gateway.tasks.webhooks.outbox import FORMER_WEBHOOK, webhook_place
from policies.tables import vault, vault_clients
from policies.vault.credentials import CredentialKey
from policies.vault.envelope import CannotOpen, Envelope, Sealed, parsed
from policies.vault.store import client_place
from registry.rows import FORMER_UPSTREAM, upstream_place
from registry.tables import registrations

AT_ONCE = 100  # rows of one transaction, so that nobody waits long


class Rewrapped(NamedTuple):
    """`kept`: ids of the keys that rows are wrapped with now. `unusable`: rows that no key opens."""

    rows: int
    unusable: int
    kept: frozenset[str]


class _Kind(NamedTuple):
    """Rows with an envelope in three columns, or in the one that is `text`.

    `former`: of the parts of the place, how many earlier versions sealed for; 0: all. Such rows are sealed for the whole place now.
    """

    table: Table
    place: Callable[["Row[Any]"], Sequence[str]]
    text: str = ""
    former: int = 0


KINDS = (
    _Kind(vault, lambda row: CredentialKey(row.tenant, row.owner, row.issuer, row.resource).place),
    _Kind(vault_clients, lambda row: client_place(row.tenant, row.issuer)),
    _Kind(connections, lambda row: place_of(row.id)),
    _Kind(registrations, lambda row: upstream_place(row._mapping), "upstream", FORMER_UPSTREAM),
    _Kind(push_configs, lambda row: webhook_place(row.tenant, row.task_id, row.id, row.url), "secrets", FORMER_WEBHOOK),
)


def rewrap(engine: Engine, envelope: Envelope) -> Rewrapped:
    """A row that somebody changes meanwhile has its new key already, or the one before, which still opens."""
    rows, unusable, kept = 0, 0, set()
    for kind in KINDS:
        for part in _parts(engine, kind):
            with engine.begin() as connection:
                for row in part:
                    try:
                        values = _anew(kind, row, envelope)
                    except CannotOpen:
                        unusable += 1
                        continue
                    same = [column == getattr(row, column.name) for column in (*kind.table.primary_key, *_sealed_columns(kind))]
                    rows += connection.execute(update(kind.table).where(*same).values(values)).rowcount
                    kept.add(_kek_of(kind, values))
    return Rewrapped(rows, unusable, frozenset(kept - {""}))


def _parts(engine: Engine, kind: _Kind) -> Iterator[list["Row[Any]"]]:
    with engine.connect() as connection:
        rows = connection.execution_options(interlock_read=True).execute(select(kind.table)).all()
    for start in range(0, len(rows), AT_ONCE):
        yield list(rows[start : start + AT_ONCE])


def _sealed_columns(kind: _Kind) -> tuple[Any, ...]:
    return (kind.table.c[kind.text],) if kind.text else (kind.table.c.kek_id, kind.table.c.wrapped, kind.table.c.body)


def _anew(kind: _Kind, row: "Row[Any]", envelope: Envelope) -> dict[str, str]:
    """Raises CannotOpen."""
    if not kind.text:
        return envelope.rewrapped(kind.place(row), Sealed(row.kek_id, row.wrapped, row.body))._asdict()
    text = getattr(row, kind.text)
    place = kind.place(row)
    return {kind.text: text if text == "{}" else envelope.rewrapped_text(place, text, place[: kind.former] if kind.former else None)}


def _kek_of(kind: _Kind, values: dict[str, str]) -> str:
    if not kind.text:
        return values["kek_id"]
    return "" if values[kind.text] == "{}" else parsed(values[kind.text]).kek_id
