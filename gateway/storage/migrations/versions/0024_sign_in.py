"""The twenty-fourth schema: people sign in at the gateway, with clients, sessions, codes, refresh tokens and devices."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"

_ENDED = sa.text("ended > 0")
_UNTIL = ("sign_in_clients", "sign_in_attempts", "sign_in_sessions", "sign_in_tokens", "sign_in_devices")


def upgrade() -> None:
    op.create_table("sign_in_clients", *_texts("id", key=True), *_texts("name", "redirect_uris", "grants"), *_numbers("used", "until"))
    op.create_table("sign_in_attempts", *_texts("state", key=True), *_texts("provider", "browser", "purpose"), *_numbers("until"))
    _create_sessions()
    _create_tokens()
    _create_devices()
    for name in _UNTIL:
        op.create_index(f"{name}_until", name, ["until"])
    epochs = sa.table("epochs", sa.column("name", sa.Text), sa.column("value", sa.BigInteger))
    op.execute(epochs.insert().values(name="sign-ins", value=0))


def _texts(*names: str, key: bool = False) -> list["sa.Column[str]"]:
    return [sa.Column(name, sa.Text(), primary_key=key, nullable=False) for name in names]


def _numbers(*names: str) -> list["sa.Column[int]"]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _create_sessions() -> None:
    person = ("owner", "roles", "provider")
    given = ("client_id", "client_name", "resource", "scope", "thumbprint", "kek_id", "wrapped", "body")
    times = _numbers("created", "renewed", "until", "ended")
    op.create_table("sign_in_sessions", *_texts("tenant", "id", key=True), *_texts(*person, *given), *times)
    op.create_index("sign_in_sessions_owner", "sign_in_sessions", ["tenant", "owner"])
    op.create_index("sign_in_sessions_ended", "sign_in_sessions", ["ended"], sqlite_where=_ENDED, postgresql_where=_ENDED)


def _create_tokens() -> None:
    op.create_table(
        "sign_in_tokens",
        *_texts("digest", key=True),
        *_texts("tenant", "session_id", "kind", "redirect_uri", "challenge"),
        *_numbers("spent", "until"),
        sa.ForeignKeyConstraint(
            ["tenant", "session_id"],
            ["sign_in_sessions.tenant", "sign_in_sessions.id"],
            name="sign_in_tokens_session",
            ondelete="CASCADE",
        ),
    )
    op.create_index("sign_in_tokens_session", "sign_in_tokens", ["tenant", "session_id"])


def _create_devices() -> None:
    op.create_table(
        "sign_in_devices",
        *_texts("device", key=True),
        *_texts("user_code", "client_id", "resource", "scope"),
        *_numbers("polled"),
        *_texts("state", "tenant", "session_id"),
        *_numbers("until"),
    )
    op.create_index("sign_in_devices_user_code", "sign_in_devices", ["user_code"], unique=True)


def downgrade() -> None:
    op.execute("DELETE FROM epochs WHERE name = 'sign-ins'")
    for table in ("sign_in_devices", "sign_in_tokens", "sign_in_sessions", "sign_in_attempts", "sign_in_clients"):
        op.drop_table(table)
