"""Rewraps every secret in the database after a change of the vault's keys. The encrypted content itself is not changed."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Engine, Row, Table, select, update

from gateway.calls.consent.account_connections import encryption_context_of
from gateway.ingress.oauth.sign_in.sessions import session_context
from gateway.ingress.oauth.sign_in.tables import sign_in_sessions
from gateway.storage.tables import connections, push_configs
from gateway.tasks.webhooks.outbox import FORMER_WEBHOOK_CONTEXT, webhook_context
from policies.tables import vault_clients, vault_credentials
from policies.vault.credentials import CredentialKey
from policies.vault.envelope import CannotOpen, EnvelopeEncryption, SealedSecret, parse_sealed
from policies.vault.store import client_full_key
from registry.rows import FORMER_UPSTREAM_CONTEXT, upstream_context
from registry.tables import registrations

BATCH_SIZE = 100  # rows of one transaction, so that other writers wait only shortly


class RewrapResult(NamedTuple):
    """`kek_ids` are the ids of the keys that rows are wrapped with now. `unusable_rows` counts rows that no key decrypts."""

    rows: int
    unusable_rows: int
    kek_ids: frozenset[str]


class _SealedTable(NamedTuple):
    """A table with an envelope in three columns, or in the column `text_column`.

    `former_parts` is the number of leading parts of the encryption context that earlier versions used; 0 means all. Such rows are bound to
    the whole context now.
    """

    table: Table
    context_of: Callable[["Row[Any]"], Sequence[str]]
    text_column: str = ""
    former_parts: int = 0


SEALED_TABLES = (
    _SealedTable(vault_credentials, lambda row: CredentialKey(row.tenant, row.owner, row.issuer, row.resource).full_key),
    _SealedTable(vault_clients, lambda row: client_full_key(row.tenant, row.issuer)),
    _SealedTable(connections, lambda row: encryption_context_of(row.id)),
    _SealedTable(sign_in_sessions, lambda row: session_context(row.tenant, row.id)),
    _SealedTable(registrations, lambda row: upstream_context(row._mapping), "upstream", FORMER_UPSTREAM_CONTEXT),
    _SealedTable(push_configs, lambda row: webhook_context(row.tenant, row.task_id, row.id, row.url), "secrets", FORMER_WEBHOOK_CONTEXT),
)


def rewrap_secrets(engine: Engine, envelope: EnvelopeEncryption) -> RewrapResult:
    """Rewraps all rows. A row that changes in between was written with the new key, or with the previous one, which still decrypts."""
    rows, unusable, key_ids = 0, 0, set()
    for kind in SEALED_TABLES:
        for part in _read_batches(engine, kind):
            with engine.begin() as connection:
                for row in part:
                    try:
                        values = _rewrap_row(kind, row, envelope)
                    except CannotOpen:
                        unusable += 1
                        continue
                    same = [column == getattr(row, column.name) for column in (*kind.table.primary_key, *_sealed_columns(kind))]
                    rows += connection.execute(update(kind.table).where(*same).values(values)).rowcount
                    key_ids.add(_kek_id_of(kind, values))
    return RewrapResult(rows, unusable, frozenset(key_ids - {""}))


def _read_batches(engine: Engine, sealed_table: _SealedTable) -> Iterator[list["Row[Any]"]]:
    with engine.connect() as connection:
        found = connection.execution_options(interlock_read=True).execute(select(sealed_table.table)).all()
    rows = [row for row in found if sealed_table.text_column or row.kek_id]  # a session may have no secret
    for start in range(0, len(rows), BATCH_SIZE):
        yield list(rows[start : start + BATCH_SIZE])


def _sealed_columns(sealed_table: _SealedTable) -> tuple[Any, ...]:
    return (
        (sealed_table.table.c[sealed_table.text_column],)
        if sealed_table.text_column
        else (sealed_table.table.c.kek_id, sealed_table.table.c.wrapped, sealed_table.table.c.body)
    )


def _rewrap_row(sealed_table: _SealedTable, row: "Row[Any]", envelope: EnvelopeEncryption) -> dict[str, str]:
    """Returns the new values of a row's columns. Raises CannotOpen."""
    if not sealed_table.text_column:
        return envelope.rewrap(sealed_table.context_of(row), SealedSecret(row.kek_id, row.wrapped, row.body))._asdict()
    text = getattr(row, sealed_table.text_column)
    place = sealed_table.context_of(row)
    return {
        sealed_table.text_column: text
        if text == "{}"
        else envelope.rewrap_text(place, text, place[: sealed_table.former_parts] if sealed_table.former_parts else None)
    }


def _kek_id_of(sealed_table: _SealedTable, values: dict[str, str]) -> str:
    if not sealed_table.text_column:
        return values["kek_id"]
    return "" if values[sealed_table.text_column] == "{}" else parse_sealed(values[sealed_table.text_column]).kek_id
