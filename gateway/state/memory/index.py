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
_VISIBLE: Final = """
  FROM hits JOIN memory_facts AS facts ON facts.number = hits.number
  WHERE facts.tenant = :tenant AND facts.owner = :owner AND facts.workflow = :workflow
  AND facts.sensitivity <= :clearance AND (facts.expires IS NULL OR facts.expires > :now) {held_back}
"""
_SCORES: Final = {  # the same on both; each is slower on the other
    "sqlite": """
visible (word, id, updated) AS (SELECT hits.word, facts.id, facts.updated {visible}),
weights (word, weight) AS (SELECT word, {weight} / COUNT(*) FROM visible GROUP BY word),
ranked (id, updated, score) AS (
  SELECT visible.id, visible.updated, SUM(weights.weight) FROM visible JOIN weights ON weights.word = visible.word
  GROUP BY visible.id, visible.updated
)""",
    "postgresql": """
visible (number, id, updated, weight) AS (
  SELECT facts.number, facts.id, facts.updated, {weight} / COUNT(*) OVER (PARTITION BY hits.word) {visible}
),
ranked (id, updated, score) AS (SELECT MAX(id), MAX(updated), SUM(weight) FROM visible GROUP BY number)""",
}
_RANKED: Final = "WITH hits (word, number) AS ({hits}), {scores} SELECT id, updated, score FROM ranked WHERE {after} {order}"
_ORDER: Final = "ORDER BY score DESC, updated DESC, id DESC LIMIT :limit"
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
    dialect = connection.dialect.name
    hits = " UNION ALL ".join(_HITS[dialect].format(at=at) for at in range(len(terms)))
    visible = _VISIBLE.format(held_back=_HELD_BACK if has_quarantines else "")
    scores = _SCORES[dialect].format(visible=visible, weight=WEIGHT)
    query = _RANKED.format(hits=hits, scores=scores, after=_AFTER if after else "1 = 1", order=_ORDER)
    values = {f"term{at}": f"'{term}'" if dialect == "postgresql" else f'"{term}"' for at, term in enumerate(terms)}
    rows = connection.execute(text(query), {**values, **wanted, **(after or {})}).all()
    return [(row.id, row.updated, int(row.score)) for row in rows]
