"""The index of words: an FTS5 table on SQLite, a table of tsvectors with a GIN index on PostgreSQL. Both hold terms, and no words."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, text

from gateway.storage.batch import Batch

WEIGHT: Final = 1_000_000  # of a word that one fact has; a word that n facts have weighs one n-th, in whole numbers
_ADD: Final = {
    "sqlite": "INSERT INTO memory_index (rowid, terms) VALUES (:number, :terms)",
    "postgresql": "INSERT INTO memory_index (number, terms) VALUES (:number, array_to_tsvector(CAST(:terms AS TEXT[])))",
}
_REMOVE: Final = {
    "sqlite": "DELETE FROM memory_index WHERE rowid = :number",
    "postgresql": "DELETE FROM memory_index WHERE number = :number",
}
_HITS: Final = {
    "sqlite": "SELECT {at} AS word, rowid AS number FROM memory_index WHERE memory_index MATCH :term{at}",
    "postgresql": "SELECT {at} AS word, number FROM memory_index WHERE terms @@ CAST(:term{at} AS TSQUERY)",
}
# What the asker may read is chosen before anything is counted: facts of others change neither the order nor the weights.
_RANKED: Final = """
WITH hits (word, number) AS ({hits}),
visible (number, id, updated, weight) AS (
  SELECT facts.number, facts.id, facts.updated, {weight} / COUNT(*) OVER (PARTITION BY hits.word)
  FROM hits JOIN memory_facts AS facts ON facts.number = hits.number
  WHERE facts.tenant = :tenant AND facts.owner = :owner AND facts.workflow = :workflow
  AND facts.sensitivity <= :clearance AND (facts.expires IS NULL OR facts.expires > :now) {held_back}
),
ranked (id, updated, score) AS (SELECT MAX(id), MAX(updated), SUM(weight) FROM visible GROUP BY number)
SELECT id, updated, score FROM ranked WHERE {after} ORDER BY score DESC, updated DESC, id DESC LIMIT :limit
"""
_HELD_BACK: Final = (
    "AND NOT EXISTS (SELECT 1 FROM memory_quarantines AS held WHERE held.tenant = facts.tenant AND held.agent = facts.agent)"
)
_AFTER: Final = "(score < :score OR (score = :score AND (updated < :updated OR (updated = :updated AND id < :id))))"


def add_terms(batch: Batch, number: int, terms: Sequence[str]) -> None:
    """Indexes one fact."""
    connection = batch.connection
    dialect = connection.dialect.name
    connection.execute(text(_ADD[dialect]), {"number": number, "terms": " ".join(terms) if dialect == "sqlite" else list(terms)})


def remove_terms(batch: Batch, numbers: Iterable[int]) -> None:
    """Takes facts out of the index. What SQLite leaves of them until it merges its segments are keyed digests."""
    rows = [{"number": number} for number in numbers]
    if rows:
        batch.connection.execute(text(_REMOVE[batch.connection.dialect.name]), rows)


def ranked_ids(
    connection: Connection, terms: Sequence[str], wanted: Mapping[str, Any], after: Mapping[str, Any] | None, *, has_quarantines: bool
) -> list[tuple[str, int, int]]:
    """The id, the last change and the score of facts with any of the terms, the best first.

    The score adds up the weights of the words that a fact has; rare ones weigh more. `wanted` has the scope, the clearance, the moment and
    the limit; `after` is the place of the last fact of the page before. Without quarantines in the tenant, no fact is looked up in them.
    """
    hits = " UNION ALL ".join(_HITS[connection.dialect.name].format(at=at) for at in range(len(terms)))
    query = _RANKED.format(hits=hits, weight=WEIGHT, held_back=_HELD_BACK if has_quarantines else "", after=_AFTER if after else "1 = 1")
    values = {f"term{at}": f"'{term}'" if connection.dialect.name == "postgresql" else f'"{term}"' for at, term in enumerate(terms)}
    rows = connection.execute(text(query), {**values, **wanted, **(after or {})}).all()
    return [(row.id, row.updated, int(row.score)) for row in rows]
