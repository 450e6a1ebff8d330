"""The waterfall of a trace: one row for each span below its cause, with its bar on the common time axis."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.audit.waterfall import SpanRow, span_rows

WIDTH: Final = 1000.0  # units of the whole time axis
BAR_MIN: Final = 4.0  # so that short spans are visible
BAR_KINDS: Final = {
    "refused": "bad",
    "failed": "bad",
    "rejected": "bad",
    "canceled": "warn",
    "unknown": "warn",
    "asks": "warn",
    "running": "busy",
}


@dataclass(frozen=True, slots=True)
class WaterfallRow:
    """One span. `x` and `width` are units of WIDTH, `begin` and `seconds` seconds; `seconds` is None for a moment."""

    span: Mapping[str, Any]
    depth: int
    begin: float
    seconds: float | None
    x: float
    width: float

    @property
    def kind(self) -> str:
        """The colour of the bar."""
        return BAR_KINDS.get(self.span["outcome"], "good")


@dataclass(frozen=True, slots=True)
class Waterfall:
    """A whole trace. `seconds` is the length of the time axis."""

    rows: tuple[WaterfallRow, ...]
    seconds: float
    truncated: bool

    @property
    def ticks(self) -> list[float]:
        """The moments that the axis names, in seconds."""
        return [self.seconds * part / 4 for part in range(5)]


def draw_waterfall(trace: Mapping[str, Any]) -> Waterfall:
    """Returns the waterfall of a trace document (gateway/audit/traces.py)."""
    rows = list(span_rows(trace["spans"]))
    whole = max((row.begin if row.is_moment else row.end for row in rows), default=0.0) or 0.001
    return Waterfall(tuple(_placed(row, whole) for row in rows), whole, bool(trace.get("truncated")))


def _placed(row: SpanRow, whole: float) -> WaterfallRow:
    seconds = None if row.is_moment else row.end - row.begin
    width = max(BAR_MIN, (seconds or 0) / whole * WIDTH)
    x = min(row.begin / whole * WIDTH, WIDTH - width)
    return WaterfallRow(row.span, row.depth, row.begin, seconds, round(x, 1), round(width, 1))
