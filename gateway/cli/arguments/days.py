"""Days and moments as people write them: 2026-01-31, today, yesterday, 7d."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

import typer

DAY_FORMS: Final = "2026-01-31, today, yesterday, or 36h, 7d, 4w for so long ago"
MOMENT_FORMS: Final = "2030-01-31, 2030-01-31T12:00:00Z, or 36h, 30d, 4w for so long from now"
_SPAN = re.compile(r"(\d{1,5})([hdw])")
_HOURS: Final = {"h": 1, "d": 24, "w": 168}


def parse_day(text: str) -> date:
    """Returns a day in UTC. Raises BadParameter, which says which forms there are."""
    given, now = text.strip().lower(), datetime.now(UTC)
    if given in ("today", "yesterday"):
        return (now - timedelta(days=1 if given == "yesterday" else 0)).date()
    try:
        return (now - span).date() if (span := _parse_span(given)) is not None else date.fromisoformat(given)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is not a day: {DAY_FORMS}") from None


def parse_moment(text: str) -> datetime:
    """Returns a moment, in UTC unless it names another offset. Raises BadParameter, which says which forms there are."""
    given = text.strip()
    try:
        at = datetime.now(UTC) + span if (span := _parse_span(given.lower())) is not None else datetime.fromisoformat(given)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is not a time: {MOMENT_FORMS}") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _parse_span(text: str) -> timedelta | None:
    found = _SPAN.fullmatch(text)
    return timedelta(hours=int(found[1]) * _HOURS[found[2]]) if found else None
