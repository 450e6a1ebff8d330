"""Settings of retention: how long ended tasks are kept, where the archive is, and from which size on the database is worth a warning."""

from pydantic import BaseModel, ConfigDict, Field


class TenantRetentionSettings(BaseModel):
    """How long the ended tasks of a tenant are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    days: int | None = Field(None, ge=1, le=36_500)  # since the last change of a task; None: for ever
    tasks: int | None = Field(None, ge=1, le=10**12)  # the newest ones; None: all
    min_days: int = Field(30, ge=1, le=36_500)  # no request deletes what changed within so many days, unless `days` is less


class RetentionSettings(TenantRetentionSettings):
    """How long the ended tasks of tenants are kept that `tenants` does not name. By default nothing is deleted."""

    tenants: dict[str, TenantRetentionSettings] = {}
    archive: str = ""  # a folder that deleted rows are written to before; empty: they are not
    warn_gigabytes: float = Field(10.0, gt=0, le=1_000_000)  # of the database, from which on the log has a warning once an hour
