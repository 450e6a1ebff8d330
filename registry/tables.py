"""Tables of the registry: agents and servers of a tenant share one namespace of names."""

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, MetaData, Table, Text

metadata = MetaData()

registrations = Table(
    "registrations",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("family", Text, nullable=False),  # agent | server | virtual
    Column("kind", Text, nullable=False),  # a2a | mcp | virtual | vendor kinds
    Column("status", Text, nullable=False),  # active | pending | quarantined | down
    Column("url", Text, nullable=False),
    Column("owner", Text, nullable=False),  # tenant|issuer|subject, or `operator` for the configuration file
    Column("card", Text, nullable=False),  # an agent's card verbatim, a server's definitions, a virtual server's selection
    Column("card_hash", Text, nullable=False),
    Column("ceiling", Text, nullable=False),  # permission strings, space-separated
    Column("delegation", Text, nullable=False),  # bearer | header | ticket | none
    Column("upstream", Text, nullable=False),  # JSON of the operator's settings for the upstream, sealed
    Column("facts", Text, nullable=False),  # JSON of what the gateway found: interface, version, era
    Column("client_id", Text, nullable=False, unique=True),
    Column("client_secret_hash", Text, nullable=False),
    Column("client_jwks", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("trusted_keys", Text, nullable=False, server_default="[]"),  # JSON list of JWKs, one of which must have signed the card
    Column("rank", BigInteger, nullable=False, server_default="0"),  # the operator's preference among agents that fit equally
    Column("sensitivity", BigInteger, nullable=False, server_default="0"),  # 0..3: of what a server returns
    Column("clearance", BigInteger, nullable=False, server_default="3"),  # 0..3: the highest sensitivity of data that it may receive
    Column("sensitivities", Text, nullable=False, server_default="{}"),  # JSON: tool -> 0..3, where it differs from its server
    Column("terms", Text, nullable=False, server_default="{}"),  # JSON of how agents are called: contracts, context, endpoints
    Index("registrations_family", "tenant", "family"),
)

cards = Table(
    "cards",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("card", Text, nullable=False),  # as received; of servers the definitions
    Column("hash", Text, nullable=False),
    Column("signature", Text, nullable=False),  # none | verified | unverified
    Column("facts", Text, nullable=False),  # JSON of the facts that come with this card
    Column("status", Text, nullable=False),  # pending | approved | rejected
    Column("note", Text, nullable=False),  # why it was rejected
    ForeignKeyConstraint(["tenant", "name"], ["registrations.tenant", "registrations.name"], name="cards_registration", ondelete="CASCADE"),
)

probes = Table(
    "probes",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),  # no key: entries of interlock.yaml that were never reached have one too
    Column("checked", BigInteger, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("note", Text, nullable=False),  # the last problem; empty: none
    Column("place", Text, nullable=False),  # the URL that the validators belong to
    Column("etag", Text, nullable=False),
    Column("last_modified", Text, nullable=False),
    Column("hash", Text, nullable=False),  # of the card that came with the validators
    Column("cause", Text, nullable=False, server_default=""),  # of the note, for operators
)
