"""Tables of the console: one-time links, and sessions of browsers. Both store digests of their secrets only."""

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Table, Text

from gateway.storage.tables import metadata


def _person() -> "list[Column[Any]]":
    """The person that a session stands for, and what the token allowed that proved the person."""
    return [
        Column("tenant", Text, nullable=False),
        Column("issuer", Text, nullable=False),
        Column("subject", Text, nullable=False),
        Column("roles", Text, nullable=False),  # JSON array: the roles that the issuer vouched for
        Column("scope", Text, nullable=False),  # permissions of the token
        Column("sign_in", Text, nullable=False, server_default=""),  # the sign-in of the token; no key: empty for tokens of others
    ]


console_links = Table(
    "console_links",
    metadata,
    Column("digest", Text, primary_key=True),  # sha256 of the secret in the link
    *_person(),
    Column("session_until", BigInteger, nullable=False),  # when the session ends that the link makes
    Column("created", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    Index("console_links_person", "tenant", "issuer", "subject", "created"),
)

console_sessions = Table(
    "console_sessions",
    metadata,
    Column("digest", Text, primary_key=True),  # sha256 of the cookie
    *_person(),
    Column("created", BigInteger, nullable=False),
    Column("seen", BigInteger, nullable=False),  # when the person last asked for a page, to the minute
    Column("until", BigInteger, nullable=False),
    Index("console_sessions_person", "tenant", "issuer", "subject", "created"),
)
