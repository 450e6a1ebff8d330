"""The waterfall of a trace: a line for each span, indented below its cause, with a bar on the time axis."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.bar import Bar
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from gateway.cli.output import printable

COLOURS = {"refused": "red", "failed": "red", "rejected": "red", "canceled": "yellow", "unknown": "yellow", "running": "cyan"}
SYMBOLS = {"task": "●", "tool": "▸", "agent": "○", "decision": "·"}


@dataclass(frozen=True, slots=True)
class SpanLine:
    """One span to draw. Times are seconds after the first span's start."""

    depth: int
    span: Mapping[str, Any]
    begin: float
    end: float

    @property
    def label(self) -> Text:
        colour = COLOURS.get(self.span["outcome"], "")
        symbol = "✗" if self.span["outcome"] == "refused" else SYMBOLS.get(self.span["kind"], "·")
        caller = f" by {printable(self.span['actor'])}"
        return Text.assemble("  " * self.depth, (f"{symbol} {printable(self.span['name'])}", colour), (caller, "dim"))

    @property
    def reason(self) -> Text | None:
        """Returns what went wrong, or None."""
        if not self.span["reason"]:
            return None
        first_line = printable(self.span["reason"]).partition("\n")[0]
        return Text(
            f"{printable(self.span['name'])} {printable(self.span['outcome'])}: {first_line}", COLOURS.get(self.span["outcome"], "")
        )


@dataclass(frozen=True, slots=True)
class SpanBar:
    """A bar on the time axis, at least one cell long, so that short spans are visible."""

    begin: float
    end: float
    whole: float
    colour: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cell = self.whole / max(options.max_width, 1)
        begin = min(self.begin, self.whole - cell)
        yield Bar(self.whole, begin, max(self.end, begin + cell), color=self.colour)


def build_waterfall(spans: Sequence[Mapping[str, Any]], width: int) -> Group:
    """Returns the spans of a trace (gateway/audit/traces.py), each below its parent, then the reasons of failures. `width` is in cells."""
    lines = list(_build_lines(spans))
    total_seconds = max((line.end for line in lines), default=0.0) or 0.001
    grid = Table(box=None, pad_edge=False, expand=True, header_style="dim")
    grid.add_column("what", no_wrap=True, overflow="ellipsis", max_width=width // 2)
    grid.add_column(f"0 to {_format_duration(total_seconds)}", ratio=1, min_width=12)
    grid.add_column("took", justify="right", no_wrap=True)
    grid.add_column("outcome", no_wrap=True)
    for line in lines:
        took = "" if line.span["kind"] == "decision" else _format_duration(line.end - line.begin)
        colour = COLOURS.get(line.span["outcome"], "green")
        grid.add_row(line.label, SpanBar(line.begin, line.end, total_seconds, colour), took, Text(printable(line.span["outcome"]), colour))
    reasons = [line.reason for line in lines if line.reason]
    return Group(grid, *([Text(""), *reasons] if reasons else []))


def _build_lines(spans: Sequence[Mapping[str, Any]]) -> Iterator[SpanLine]:
    """Yields a line for each span. The only turn of a task is skipped, since the task's own line equals it."""
    start = min((_to_seconds(span["start"]) for span in spans), default=0.0)
    last = max((_to_seconds(span["end"] or span["start"]) for span in spans), default=0.0)
    turns = [span["parent"] for span in spans if span["kind"] == "agent"]
    depths: dict[str, int] = {}
    for span in spans:
        depth = depths[span["id"]] = depths.get(span["parent"], -1) + 1
        if span["kind"] == "agent" and turns.count(span["parent"]) == 1 and span["parent"] in depths:
            continue
        yield SpanLine(depth, span, _to_seconds(span["start"]) - start, _to_seconds(span["end"]) - start if span["end"] else last - start)


def _to_seconds(text: str) -> float:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _format_duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
