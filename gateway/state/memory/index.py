"""The index of words: an FTS5 table on SQLite, a table of tsvectors with a GIN index on PostgreSQL. Both hold terms, and no words."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
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
    "sqlite": "SELECT 1 << {at} AS word, rowid AS number FROM memory_index WHERE memory_index MATCH :term{at}",
    "postgresql": "SELECT {at} AS word, number FROM memory_index WHERE terms @@ CAST(:term{at} AS TSQUERY)",
}
# What the asker may read is chosen before anything is counted: facts of others change neither the order nor the weights.
_MAY_BE_READ: Final = """
  facts.tenant = :tenant AND facts.owner = :owner AND facts.workflow = :workflow
  AND facts.sensitivity <= :clearance AND (facts.expires IS NULL OR facts.expires > :now) {held_back}
"""
# SQLite looks each fact up once, whatever it has of the words: `words` has a bit for each, 64 at most.
_SQLITE_SCORES: Final = """
visible (id, updated, words) AS MATERIALIZED (
  SELECT facts.id, facts.updated, found.words FROM (SELECT number, SUM(word) AS words FROM hits GROUP BY number) AS found
  JOIN memory_facts AS facts ON facts.number = found.number WHERE {may_be_read}
),
weights AS (SELECT {weights} FROM visible),
ranked (id, updated, score) AS (SELECT id, updated, {score} FROM visible CROSS JOIN weights)"""
_POSTGRES_SCORES: Final = """
visible (number, id, updated, weight) AS (
  SELECT facts.number, facts.id, facts.updated, {weight} / COUNT(*) OVER (PARTITION BY hits.word)
  FROM hits JOIN memory_facts AS facts ON facts.number = hits.number WHERE {may_be_read}
),
ranked (id, updated, score) AS (SELECT MAX(id), MAX(updated), SUM(weight) FROM visible GROUP BY number)"""
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
    query = _build_query(dialect, len(terms), after is not None, has_quarantines)
    values = {f"term{at}": f"'{term}'" if dialect == "postgresql" else f'"{term}"' for at, term in enumerate(terms)}
    rows = connection.execute(text(query), {**values, **wanted, **(after or {})}).all()
    return [(row.id, row.updated, int(row.score)) for row in rows]


@cache
def _build_query(dialect: str, count: int, has_cursor: bool, has_quarantines: bool) -> str:
    """The query for so many words, of which there is at least one."""
    hits = " UNION ALL ".join(_HITS[dialect].format(at=at) for at in range(count))
    may_be_read = _MAY_BE_READ.format(held_back=_HELD_BACK if has_quarantines else "")
    if dialect == "sqlite":
        has_word = [f"(words >> {at} & 1)" for at in range(count)]
        weights = ", ".join(f"{WEIGHT} / MAX(SUM({bit}), 1) AS weight{at}" for at, bit in enumerate(has_word))
        score = " + ".join(f"{bit} * weight{at}" for at, bit in enumerate(has_word))
        scores = _SQLITE_SCORES.format(may_be_read=may_be_read, weights=weights, score=score)
    else:
        scores = _POSTGRES_SCORES.format(may_be_read=may_be_read, weight=WEIGHT)
    return _RANKED.format(hits=hits, scores=scores, after=_AFTER if has_cursor else "1 = 1", order=_ORDER)
