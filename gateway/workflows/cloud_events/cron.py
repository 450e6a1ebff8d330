"""Moments of cron expressions, in UTC."""

from datetime import UTC, datetime
from typing import Final

from cronsim import CronSim, CronSimError

FIELDS: Final = 5


def next_moment(expression: str, after: int) -> int:
    """The first moment after `after`, in microseconds since 1970. Raises ValueError for what is no cron expression of five fields."""
    if len(expression.split()) != FIELDS:
        raise ValueError("has five fields: minute, hour, day of month, month, day of week")
    try:
        found = next(CronSim(expression, datetime.fromtimestamp(after / 1_000_000, UTC)))
    except CronSimError as error:
        raise ValueError(f"is no cron expression: {error}") from error
    except StopIteration as error:
        raise ValueError("never comes") from error
    return int(found.timestamp()) * 1_000_000
