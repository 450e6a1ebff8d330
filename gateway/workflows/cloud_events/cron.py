"""Moments of cron expressions in a time zone.

Where clocks are set forward, a moment that does not exist comes at the end of the gap. Where they are set back, an expression that names an
hour comes once, and one that names every hour comes in each of both, as cron of Debian has it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

FIELDS: Final = 5
SECOND_US: Final = 1_000_000


def next_moment(expression: str, after: int, timezone: str = "") -> int:
    """The first moment after `after`, in microseconds since 1970. `timezone` is a name such as Europe/Berlin; empty: UTC.

    Raises ValueError for what is no cron expression of five fields, and for an unknown zone.
    """
    if len(expression.split()) != FIELDS:
        raise ValueError("has five fields: minute, hour, day of month, month, day of week")
    try:
        return next(moments_after(expression, after, timezone))
    except CronSimError as error:
        raise ValueError(f"is no cron expression: {error}") from error
    except StopIteration as error:
        raise ValueError("never comes") from error


def moments_after(expression: str, after: int, timezone: str = "") -> Iterator[int]:
    """Yields the moments after `after`, the first one first."""
    for found in CronSim(expression, datetime.fromtimestamp(after / SECOND_US, find_zone(timezone))):
        moment = int(found.timestamp()) * SECOND_US
        if moment > after:  # in an hour that comes twice, the search begins in the first one
            yield moment


@cache
def find_zone(name: str) -> tzinfo:
    """The zone of a name; UTC for an empty one. Raises ValueError for one that this machine does not know."""
    if not name:
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError) as error:
        raise ValueError("is no time zone that this gateway knows, such as Europe/Berlin") from error
