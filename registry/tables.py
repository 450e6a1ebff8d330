"""Rows of the registry: one namespace of names per tenant, for agents and servers alike."""

from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Text

metadata = MetaData()

registrations = Table(
    "registrations",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("family", Text, nullable=False),  # agent | server
    Column("kind", Text, nullable=False),  # a2a | mcp | vendor kinds
    Column("status", Text, nullable=False),  # active | pending | quarantined | down
    Column("url", Text, nullable=False),
    Column("owner", Text, nullable=False),  # tenant|issuer|subject, or `operator` for the configuration file
    Column("card", Text, nullable=False),  # an agent's card verbatim, a server's tool definitions
    Column("card_hash", Text, nullable=False),
    Column("ceiling", Text, nullable=False),  # permission strings, space-separated
    Column("delegation", Text, nullable=False),  # bearer | header | none
    Column("upstream", Text, nullable=False),  # JSON of the operator's settings for the other side
    Column("facts", Text, nullable=False),  # JSON of what we learned: interface, version, era
    Column("client_id", Text, nullable=False, unique=True),
    Column("client_secret_hash", Text, nullable=False),
    Column("client_jwks", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Index("registrations_family", "tenant", "family"),
)
