"""The waterfall of a trace: a line for each span, indented below its cause, with a bar on the time axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.bar import Bar
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from gateway.audit.waterfall import SpanRow, span_rows
from gateway.cli.output import printable

COLOURS = {"refused": "red", "failed": "red", "rejected": "red", "canceled": "yellow", "unknown": "yellow", "running": "cyan"}
SYMBOLS = {"task": "●", "tool": "▸", "agent": "○", "decision": "·"}


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
    lines = list(span_rows(spans))
    total_seconds = max((line.end for line in lines), default=0.0) or 0.001
    grid = Table(box=None, pad_edge=False, expand=True, header_style="dim")
    grid.add_column("what", no_wrap=True, overflow="ellipsis", max_width=width // 2)
    grid.add_column(f"0 to {_format_duration(total_seconds)}", ratio=1, min_width=12)
    grid.add_column("took", justify="right", no_wrap=True)
    grid.add_column("outcome", no_wrap=True)
    for line in lines:
        took = "" if line.is_moment else _format_duration(line.end - line.begin)
        colour = COLOURS.get(line.span["outcome"], "green")
        grid.add_row(
            _label_of(line), SpanBar(line.begin, line.end, total_seconds, colour), took, Text(printable(line.span["outcome"]), colour)
        )
    reasons = [text for line in lines for text in (*_retries_of(line.span), *([_reason_of(line.span)] if line.span["reason"] else []))]
    return Group(grid, *([Text(""), *reasons] if reasons else []))


def _label_of(row: SpanRow) -> Text:
    span = row.span
    symbol = "✗" if span["outcome"] == "refused" else SYMBOLS.get(span["kind"], "·")
    said = (f"{symbol} {printable(span['name'])}", COLOURS.get(span["outcome"], ""))
    return Text.assemble("  " * row.depth, said, (f" by {printable(span['actor'])}", "dim"))


def _retries_of(span: Mapping[str, Any]) -> list[Text]:
    """Which problems the attempts had that came before the last one, each in one line."""
    problems = [printable(each["problem"]).partition("\n")[0] for each in span.get("retries", ())]
    return [Text(f"{printable(span['name'])} tried again after: {problem}", "yellow") for problem in problems]


def _reason_of(span: Mapping[str, Any]) -> Text:
    """What went wrong, in one line."""
    first_line = printable(span["reason"]).partition("\n")[0]
    return Text(f"{printable(span['name'])} {printable(span['outcome'])}: {first_line}", COLOURS.get(span["outcome"], ""))


def _format_duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
