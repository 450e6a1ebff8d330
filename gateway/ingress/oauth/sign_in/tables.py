"""Tables of sign-in: registered clients, logins under way, sessions with their codes and refresh tokens, and devices that wait."""

from sqlalchemy import BigInteger, Column, Index, Table, Text

from gateway.storage.tables import deleted_with, metadata, partial_index

ENDED = partial_index("ended > 0")

sign_in_clients = Table(  # belongs to no tenant: a client registers before anybody signs in with it
    "sign_in_clients",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("redirect_uris", Text, nullable=False),  # JSON
    Column("grants", Text, nullable=False),  # JSON: the grant types that it registered
    Column("used", BigInteger, nullable=False),  # when a person last signed in with it; 0: never
    Column("until", BigInteger, nullable=False),
    Index("sign_in_clients_until", "until"),
)

sign_in_attempts = Table(  # belongs to no tenant: nobody is known before the login at the provider
    "sign_in_attempts",
    metadata,
    Column("state", Text, primary_key=True),  # sha256 of the `state` that the provider returns
    Column("provider", Text, nullable=False),
    Column("browser", Text, nullable=False),  # sha256 of the cookie of the browser that consented
    Column("purpose", Text, nullable=False),  # JSON: what the person consented to
    Column("until", BigInteger, nullable=False),
    Index("sign_in_attempts_until", "until"),
)

sign_in_sessions = Table(
    "sign_in_sessions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),  # tenant|issuer|subject
    Column("roles", Text, nullable=False),  # JSON: those that the provider vouched for last
    Column("provider", Text, nullable=False),  # the name in the settings; empty: the development users
    Column("client_id", Text, nullable=False),
    Column("client_name", Text, nullable=False),
    Column("resource", Text, nullable=False),  # the one audience of its tokens
    Column("scope", Text, nullable=False),
    Column("thumbprint", Text, nullable=False),  # of the key that its tokens are bound to (RFC 9449), or empty
    Column("kek_id", Text, nullable=False),  # with `wrapped` and `body` the provider's refresh token, sealed; all empty without one
    Column("wrapped", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("renewed", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("ended", BigInteger, nullable=False),  # 0: it lasts
    Column("renewing", BigInteger, nullable=False, server_default="0"),  # since when a process asks the provider; 0: none does
    Index("sign_in_sessions_owner", "tenant", "owner"),
    Index("sign_in_sessions_until", "until"),
    Index("sign_in_sessions_ended", "ended", **ENDED),
)

sign_in_tokens = Table(
    "sign_in_tokens",
    metadata,
    Column("digest", Text, primary_key=True),  # sha256 of the code or refresh token
    Column("tenant", Text, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("kind", Text, nullable=False),  # code | refresh
    Column("redirect_uri", Text, nullable=False),  # of a code, as its request gave it
    Column("challenge", Text, nullable=False),  # of a code (RFC 7636, S256)
    Column("spent", BigInteger, nullable=False),  # 0: it can be used, once
    Column("until", BigInteger, nullable=False),
    deleted_with(sign_in_sessions, ("tenant", "session_id"), "sign_in_tokens_session"),
    Index("sign_in_tokens_session", "tenant", "session_id"),
    Index("sign_in_tokens_until", "until"),
)

sign_in_devices = Table(  # belongs to no tenant until a person has approved it
    "sign_in_devices",
    metadata,
    Column("device", Text, primary_key=True),  # sha256 of the device code
    Column("user_code", Text, nullable=False),  # sha256 of the code that the person types
    Column("client_id", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("polled", BigInteger, nullable=False),  # when the device last asked
    Column("state", Text, nullable=False),  # pending | approved | denied
    Column("tenant", Text, nullable=False),  # with `session_id` the session of an approved device, else empty
    Column("session_id", Text, nullable=False),
    Column("until", BigInteger, nullable=False),
    Index("sign_in_devices_user_code", "user_code", unique=True),
    Index("sign_in_devices_until", "until"),
)
