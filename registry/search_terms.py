"""The search index: words of agents, computed here so that every database finds the same."""

import hashlib
import re
import unicodedata
from collections.abc import Iterator

from sqlalchemy import Connection, text

from registry.cards.card import AgentCard

TERM_MAX = 64  # characters
TERMS_MAX = 4000  # of one agent
QUERY_TERMS_MAX = 32  # of one query
_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> Iterator[str]:
    """Yields the words of a text: letters and digits, without case and accents, and without any syntax of a query language."""
    plain = text.casefold()
    if not plain.isascii():  # else it has no accents
        plain = "".join(letter for letter in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(letter))
    for found in _WORD.finditer(plain):
        yield found[0][:TERM_MAX]


def terms_of(name: str, card: AgentCard | None) -> tuple[str, ...]:
    """All words of an agent, each once, at most TERMS_MAX."""
    texts = [name]
    if card is not None:
        texts += [card.name, card.description, *card.input_modes, *card.output_modes]
        for skill in card.skills:
            texts += [skill.id, skill.name, skill.description, *skill.tags]
    return tuple(dict.fromkeys(word for one in texts for word in words_of(one)))[:TERMS_MAX]


def query_terms(query: str) -> tuple[str, ...]:
    """The words of a query, each once, at most QUERY_TERMS_MAX."""
    return tuple(dict.fromkeys(words_of(query[:4000])))[:QUERY_TERMS_MAX]


_DELETE = {
    "sqlite": text("DELETE FROM agent_search WHERE rowid = :rowid"),
    "postgresql": text("DELETE FROM agent_search WHERE tenant = :tenant AND name = :name"),
}
_INSERT = {
    "sqlite": text("INSERT INTO agent_search (rowid, tenant, name, terms) VALUES (:rowid, :tenant, :name, :terms)"),
    "postgresql": text(
        "INSERT INTO agent_search (tenant, name, terms) VALUES (:tenant, :name, array_to_tsvector(string_to_array(:terms, ' ')))"
    ),
}
_FIND = {
    "sqlite": text("SELECT name FROM agent_search WHERE agent_search MATCH :query AND tenant = :tenant"),
    "postgresql": text("SELECT name FROM agent_search WHERE terms @@ CAST(:query AS tsquery) AND tenant = :tenant"),
}


def delete(connection: Connection, tenant: str, name: str) -> None:
    """Removes an agent from the index, in the commit that removes or changes it."""
    connection.execute(_DELETE[connection.dialect.name], _key(connection, tenant, name))


def write(connection: Connection, tenant: str, name: str, terms: tuple[str, ...]) -> None:
    """Indexes an agent, in the commit that adds or changes it."""
    delete(connection, tenant, name)
    connection.execute(_INSERT[connection.dialect.name], _key(connection, tenant, name) | {"terms": " ".join(terms)})


def find(connection: Connection, tenant: str, terms: tuple[str, ...]) -> list[str]:
    """The names of the agents that have a word beginning with each of `terms`."""
    if not terms:
        return []
    sqlite = connection.dialect.name == "sqlite"
    query = " AND ".join(f'terms:"{term}"*' for term in terms) if sqlite else " & ".join(f"'{term}':*" for term in terms)
    return list(connection.execute(_FIND[connection.dialect.name], {"tenant": tenant, "query": query}).scalars())


def read_indexed(connection: Connection) -> set[tuple[str, str]]:
    """(tenant, name) of all indexed agents."""
    return {(row[0], row[1]) for row in connection.execute(text("SELECT tenant, name FROM agent_search"))}


def _key(connection: Connection, tenant: str, name: str) -> dict[str, object]:
    """The key of a row. FTS5 finds rows by number only, so on SQLite the key has a number derived from the name."""
    if connection.dialect.name != "sqlite":
        return {"tenant": tenant, "name": name}
    number = hashlib.sha256(f"{tenant}\0{name}".encode()).digest()[:8]
    return {"tenant": tenant, "name": name, "rowid": int.from_bytes(number, signed=True)}
