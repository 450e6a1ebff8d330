"""Settings of the database."""

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

HOUR: Final = 3600.0


def _check_database_url(url: str) -> str:
    """Returns the URL. Raises ValueError for a database that the gateway does not support, without repeating a password."""
    if url and not url.startswith(("sqlite:///", "postgresql://")):
        kind = url.partition(":")[0][:32]
        raise ValueError(f"{kind!r} is not a supported database; write sqlite:///PATH or postgresql://USER@HOST/NAME")
    return url


class DatabaseSettings(BaseModel):
    """The database of the gateway."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, AfterValidator(_check_database_url)] = (
        ""  # sqlite:///PATH or postgresql://…; empty: a SQLite file in INTERLOCK_HOME
    )
    wait: float = Field(30.0, ge=0, le=HOUR)  # seconds that the start waits for an unreachable server
