"""The rows of a trace, for the console and the command line: which spans have one, how deep it is, and when it begins and ends."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class SpanRow:
    """One span below its cause. Times are seconds after the start of the first span; one without an end lasts until the last is known."""

    span: Mapping[str, Any]
    depth: int
    begin: float
    end: float

    @property
    def is_moment(self) -> bool:
        """Whether it has no duration."""
        return bool(self.span["kind"] == "decision")


def span_rows(spans: Sequence[Mapping[str, Any]]) -> Iterator[SpanRow]:
    """Yields a row for each span of a trace document (gateway/audit/traces.py).

    The only turn of a task is left out, since the row of the task equals it: what the turn caused stands right below the task, and the
    row has the turn's `retries`.
    """
    start = min((_to_seconds(span["start"]) for span in spans), default=0.0)
    last = max((_to_seconds(span["end"] or span["start"]) for span in spans), default=0.0)
    turns = Counter(span["parent"] for span in spans if span["kind"] == "agent")
    retries = {span["parent"]: span["retries"] for span in spans if span["kind"] == "agent" and span.get("retries")}
    depths: dict[str, int] = {}
    for span in spans:
        depth = depths[span["id"]] = depths.get(span["parent"], -1) + 1
        if span["kind"] == "agent" and turns[span["parent"]] == 1 and span["parent"] in depths:
            depths[span["id"]] = depth - 1
            continue
        end = _to_seconds(span["end"]) if span["end"] else last
        shown = {**span, "retries": retries[span["id"]]} if turns[span["id"]] == 1 and span["id"] in retries else span
        yield SpanRow(shown, depth, _to_seconds(span["start"]) - start, end - start)


def _to_seconds(text: str) -> float:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
