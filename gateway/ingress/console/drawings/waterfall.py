"""The waterfall of a trace: one row for each span below its cause, with its bar on the common time axis."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

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
    rows = list(_rows(trace["spans"]))
    whole = max((row.begin + (row.seconds or 0) for row in rows), default=0.0) or 0.001
    return Waterfall(tuple(_placed(row, whole) for row in rows), whole, bool(trace.get("truncated")))


def _placed(row: WaterfallRow, whole: float) -> WaterfallRow:
    width = max(BAR_MIN, (row.seconds or 0) / whole * WIDTH)
    x = min(row.begin / whole * WIDTH, WIDTH - width)
    return WaterfallRow(row.span, row.depth, row.begin, row.seconds, round(x, 1), round(width, 1))


def _rows(spans: Sequence[Mapping[str, Any]]) -> Iterator[WaterfallRow]:
    """Yields a row for each span. The only turn of a task is left out, since the row of the task equals it."""
    start = min((_seconds(span["start"]) for span in spans), default=0.0)
    last = max((_seconds(span["end"] or span["start"]) for span in spans), default=0.0)
    turns = [span["parent"] for span in spans if span["kind"] == "agent"]
    depths: dict[str, int] = {}
    for span in spans:
        depth = depths[span["id"]] = depths.get(span["parent"], -1) + 1
        if span["kind"] == "agent" and turns.count(span["parent"]) == 1 and span["parent"] in depths:
            depths[span["id"]] = depth - 1
            continue
        begin = _seconds(span["start"])
        end = _seconds(span["end"]) if span["end"] else last
        seconds = None if span["kind"] == "decision" else end - begin
        yield WaterfallRow(span, depth, begin - start, seconds, 0.0, 0.0)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
