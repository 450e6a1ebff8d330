"""Tables of memory. On both databases there is `memory_index` too, a table of the database's own kind (gateway/state/memory/index.py).

A person is named by tenant|issuer|subject. Agents and tasks have no foreign keys: facts outlive both.
"""

from sqlalchemy import BigInteger, Column, Index, Table, Text

from gateway.storage.tables import deleted_with, metadata, partial_index

EXPIRING = partial_index("expires IS NOT NULL")

memory_scopes = Table(
    "memory_scopes",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("owner", Text, primary_key=True),  # the person whose facts these are; empty in the scope of a workflow
    Column("workflow", Text, primary_key=True),  # its name; empty in the scope of a person
    Column("salt", Text, nullable=False),  # hex; keys the terms of the index, which are meaningless once it is deleted
    Column("facts", BigInteger, nullable=False),  # how many there are
)

memory_facts = Table(
    "memory_facts",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),  # the row of `memory_index`
    Column("owner", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("version", BigInteger, nullable=False),  # from 1; older ones are in `memory_versions`
    Column("text", Text, nullable=False),
    Column("digest", Text, nullable=False),  # of the text, keyed with the salt of the scope
    Column("sensitivity", BigInteger, nullable=False),  # 0..3
    Column("agent", Text, nullable=False),  # that wrote this version; empty: a person
    Column("task_id", Text, nullable=False),  # in which it was written, or empty
    Column("author", Text, nullable=False),  # the person who wrote this version, or for whom the agent did
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("expires", BigInteger),
    deleted_with(memory_scopes, ("tenant", "owner", "workflow"), "memory_facts_scope"),
    Index("memory_facts_number", "number", unique=True),
    Index("memory_facts_in_scope", "tenant", "owner", "workflow", "updated", "id"),
    Index("memory_facts_digest", "tenant", "owner", "workflow", "digest"),
    Index("memory_facts_author", "tenant", "author"),
    Index("memory_facts_expiring", "expires", **EXPIRING),
)

memory_versions = Table(
    "memory_versions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("fact_id", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("sensitivity", BigInteger, nullable=False),
    Column("agent", Text, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("at", BigInteger, nullable=False),  # when this version was written
    deleted_with(memory_facts, ("tenant", "fact_id"), "memory_versions_fact"),
    Index("memory_versions_author", "tenant", "author"),
)

memory_quarantines = Table(
    "memory_quarantines",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("agent", Text, primary_key=True),  # whose facts are not found
    Column("author", Text, nullable=False),  # the operator
    Column("reason", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)
