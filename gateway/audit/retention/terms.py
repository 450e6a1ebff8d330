"""How long ended tasks are kept: by age and by number, for each tenant."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

DAY_US: Final = 86_400_000_000


class UnknownHold(Exception):
    """No such hold is in force in this tenant."""


class ArchiveUnwritable(Exception):
    """The archive can't be written, so that nothing is deleted; the message says why."""


class TermsTooShort(Exception):
    """A request would delete tasks that the settings keep for some more days."""

    def __init__(self, least: int) -> None:
        super().__init__(f"is {least} at least: the settings let no request delete what is younger (retention.min_days)")


class RetentionTerms(Struct, frozen=True):
    """What is kept of one tenant. None: without a limit."""

    days: int | None = None  # since a task's last change
    tasks: int | None = None  # the newest ones
    min_days: int = 1  # what changed within so many days is kept, however many tasks there are

    @property
    def keeps_all(self) -> bool:
        return self.days is None and self.tasks is None


class TermsByTenant(Struct, frozen=True):
    """The terms of each tenant: those under its name, or else the default ones. `least`: days that requests can't shorten."""

    default: RetentionTerms
    by_name: Mapping[str, RetentionTerms]
    default_least: int = 1
    least_by_name: Mapping[str, int] = {}

    def of(self, tenant: str) -> RetentionTerms:
        return self.by_name.get(tenant, self.default)

    def least_days(self, tenant: str) -> int:
        """Returns the age in days below which no request deletes a task of the tenant."""
        return self.least_by_name.get(tenant, self.default_least)

    def for_request(self, tenant: str, days: int | None, tasks: int | None) -> RetentionTerms:
        """Returns what a request may have deleted: the terms of the settings if it names none. Raises TermsTooShort."""
        if days is None and tasks is None:
            return self.of(tenant)
        least = self.least_days(tenant)
        if days is not None and days < least:
            raise TermsTooShort(least)
        return RetentionTerms(days, tasks, least)
