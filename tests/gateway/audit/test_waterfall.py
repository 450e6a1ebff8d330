"""Rows of a trace, which the console and the command line show: depths, and the times of what has not ended."""

from typing import Any

from gateway.audit.waterfall import SpanRow, span_rows


def span(own_id: str, parent: str, kind: str, second: int, end: int | None = None) -> dict[str, Any]:
    moments = {"start": f"2026-11-23T10:00:{second:02}Z", "end": None if end is None else f"2026-11-23T10:00:{end:02}+00:00"}
    return {"id": own_id, "parent": parent, "kind": kind, "outcome": "ok", **moments}


def shown(*spans: dict[str, Any]) -> list[tuple[str, int]]:
    return [(row.span["id"], row.depth) for row in span_rows(spans)]


def test_what_the_only_turn_of_a_task_caused_stands_right_below_the_task() -> None:
    assert shown(span("task", "", "task", 0, 9), span("turn", "task", "agent", 1, 8), span("tool", "turn", "tool", 2, 3)) == [
        ("task", 0),
        ("tool", 1),
    ]


def test_each_turn_of_a_task_with_several_has_a_row() -> None:
    turns = [span(f"turn{number}", "task", "agent", number, number + 1) for number in (1, 2)]
    assert shown(span("task", "", "task", 0, 9), *turns) == [("task", 0), ("turn1", 1), ("turn2", 1)]


def test_what_has_not_ended_lasts_until_the_last_known_moment() -> None:
    open_one, moment = span_rows([span("task", "", "task", 1), span("asked", "task", "decision", 5, 7)])
    assert (open_one.begin, open_one.end, open_one.is_moment) == (0.0, 6.0, False)
    assert isinstance(moment, SpanRow) and (moment.begin, moment.is_moment) == (4.0, True)
    assert list(span_rows([])) == []
