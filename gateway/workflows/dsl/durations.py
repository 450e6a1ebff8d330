"""Durations as the DSL writes them: members for each unit, or ISO 8601."""

import re
from typing import Final

_ISO: Final = re.compile(
    r"P(?:(?P<weeks>[0-9]{1,6})W)?(?:(?P<days>[0-9]{1,6})D)?"
    r"(?:T(?:(?P<hours>[0-9]{1,9})H)?(?:(?P<minutes>[0-9]{1,9})M)?(?:(?P<seconds>[0-9]{1,9}(?:\.[0-9]{1,9})?)S)?)?",
    re.ASCII,
)
# The same for editors, whose JSON Schema knows no named groups.
EDITOR_PATTERN: Final = r"^P(?=[0-9T])(?:[0-9]+W)?(?:[0-9]+D)?(?:T(?=[0-9])(?:[0-9]+H)?(?:[0-9]+M)?(?:[0-9]+(?:\.[0-9]+)?S)?)?$"
_UNITS: Final = {"weeks": 604_800_000, "days": 86_400_000, "hours": 3_600_000, "minutes": 60_000, "seconds": 1000}
LONGEST: Final = 10 * 366 * 86_400_000  # milliseconds, ten years
UNDO_GRACE: Final = 3_600_000  # milliseconds that a run has after its deadline to undo what it did


def milliseconds_of(text: str) -> int:
    """The length of an ISO 8601 duration in milliseconds.

    Raises ValueError for any other text, and for years and months, whose length depends on a calendar.
    """
    match = _ISO.fullmatch(text)
    given = {unit: number for unit, number in match.groupdict().items() if number is not None} if match else {}
    if not given or text.endswith("T"):
        raise ValueError("is no ISO 8601 duration of weeks, days, hours, minutes and seconds, such as P1D or PT15M")
    total = round(sum(float(number) * _UNITS[unit] for unit, number in given.items()))
    if total > LONGEST:
        raise ValueError("is longer than ten years")
    return total
