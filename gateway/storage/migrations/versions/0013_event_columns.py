"""The thirteenth schema: how an artifact joins what came before, and the metadata of an update, are columns and no part of `body`."""

import json
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_MARKS = ("append", "last_chunk", "replied")
_METADATA_PREFIXES = {"status": '{"metadata":', "artifact": '{"updateMetadata":'}
_REPLY_SUFFIX = ',"replied":true}'
_EVENTS_AT_ONCE = 500
_NEXT_WITH_METADATA = """
SELECT tenant, task_id, seq, body FROM task_events
WHERE kind = :kind AND substr(body, 1, :length) = :prefix AND (tenant, task_id, seq) > (:tenant, :task_id, :seq)
ORDER BY tenant, task_id, seq LIMIT :count
"""


def upgrade() -> None:
    for name in _MARKS:
        op.add_column("task_events", sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("task_events", sa.Column("metadata", sa.Text()))
    for last_chunk in (False, True):
        for append in (False, True):
            _cut_suffix("artifact", _artifact_suffix(last_chunk, append), append=append, last_chunk=last_chunk, replied=False)
    _cut_suffix("status", _REPLY_SUFFIX, append=False, last_chunk=False, replied=True)
    for kind, prefix in _METADATA_PREFIXES.items():
        for batch in _events_with_prefix(kind, prefix):
            _move_metadata(batch, prefix)


def _artifact_suffix(last_chunk: bool, append: bool) -> str:
    return f',"lastChunk":{json.dumps(last_chunk)},"append":{json.dumps(append)}}}'


def _cut_suffix(kind: str, suffix: str, **marks: bool) -> None:
    """Moves what the gateway wrote behind the last member of a body into columns."""
    statement = sa.text(
        "UPDATE task_events SET append = :append, last_chunk = :last_chunk, replied = :replied, "
        "body = substr(body, 1, length(body) - :length) || '}' "
        "WHERE kind = :kind AND substr(body, length(body) - :length + 1) = :suffix"
    )
    op.get_bind().execute(statement, {"kind": kind, "suffix": suffix, "length": len(suffix), **marks})


def _events_with_prefix(kind: str, prefix: str) -> Iterator[list[sa.Row[tuple[str, str, int, str]]]]:
    where = {"kind": kind, "prefix": prefix, "length": len(prefix), "count": _EVENTS_AT_ONCE}
    last = {"tenant": "", "task_id": "", "seq": -1}
    while rows := op.get_bind().execute(sa.text(_NEXT_WITH_METADATA), where | last).all():
        last = {name: getattr(rows[-1], name) for name in last}
        yield list(rows)


def _move_metadata(rows: list[sa.Row[tuple[str, str, int, str]]], prefix: str) -> None:
    """The metadata keeps its very text; behind it and a comma stand the other members."""
    decode = json.JSONDecoder().raw_decode
    statement = sa.text(
        "UPDATE task_events SET metadata = :metadata, body = :body WHERE tenant = :tenant AND task_id = :task_id AND seq = :seq"
    )
    for row in rows:
        _, end = decode(row.body, len(prefix))
        values = {"metadata": row.body[len(prefix) : end], "body": "{" + row.body[end + 1 :]}
        op.get_bind().execute(statement, {"tenant": row.tenant, "task_id": row.task_id, "seq": row.seq, **values})


def downgrade() -> None:
    for kind, prefix in _METADATA_PREFIXES.items():
        statement = sa.text(
            "UPDATE task_events SET body = :prefix || metadata || ',' || substr(body, 2) WHERE kind = :kind AND metadata IS NOT NULL"
        )
        op.get_bind().execute(statement, {"prefix": prefix, "kind": kind})
    for last_chunk in (False, True):
        for append in (False, True):
            _add_suffix("artifact", _artifact_suffix(last_chunk, append), append=append, last_chunk=last_chunk, replied=False)
    _add_suffix("status", _REPLY_SUFFIX, append=False, last_chunk=False, replied=True)
    op.drop_column("task_events", "metadata")
    for name in _MARKS:
        op.drop_column("task_events", name)


def _add_suffix(kind: str, suffix: str, **marks: bool) -> None:
    statement = sa.text(
        "UPDATE task_events SET body = substr(body, 1, length(body) - 1) || :suffix "
        "WHERE kind = :kind AND append = :append AND last_chunk = :last_chunk AND replied = :replied"
    )
    op.get_bind().execute(statement, {"kind": kind, "suffix": suffix, **marks})
