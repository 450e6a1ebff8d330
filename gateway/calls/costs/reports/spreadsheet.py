"""Costs as CSV (RFC 4180), for spreadsheets."""

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any, Final

FIGURES: Final = ("amount", "currency", "unpriced", "quarantined", "charged", "priced", "input_tokens", "output_tokens")
FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would evaluate a name that begins so


def write_csv(group: str, items: Iterable[Mapping[str, Any]]) -> str:
    """The groups of /api/cost, one a line, with a line of names. An unknown amount is empty."""
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow((group, *FIGURES))
    for item in items:
        writer.writerow((_as_text(str(item[group])), *("" if item[name] is None else item[name] for name in FIGURES)))
    return lines.getvalue()


def _as_text(name: str) -> str:
    return f"'{name}" if name.startswith(FORMULA_STARTS) else name
