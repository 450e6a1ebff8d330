"""How long ended tasks are kept: by age and by number, for each tenant."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

DAY_US: Final = 86_400_000_000
AGE_MIN_US: Final = DAY_US  # nothing that changed within a day is deleted, however many tasks there are


class UnknownHold(Exception):
    """No such hold is in force in this tenant."""


class ArchiveUnwritable(Exception):
    """The archive can't be written, so that nothing is deleted; the message says why."""


class RetentionTerms(Struct, frozen=True):
    """What is kept of one tenant. None: without a limit."""

    days: int | None = None  # since a task's last change
    tasks: int | None = None  # the newest ones

    @property
    def keeps_all(self) -> bool:
        return self.days is None and self.tasks is None


class TermsByTenant(Struct, frozen=True):
    """The terms of each tenant: those under its name, or else the default ones."""

    default: RetentionTerms
    by_name: Mapping[str, RetentionTerms]

    def of(self, tenant: str) -> RetentionTerms:
        return self.by_name.get(tenant, self.default)
