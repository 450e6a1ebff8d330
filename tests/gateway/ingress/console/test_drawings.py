"""What pages show is computed by small functions: marks for hidden characters, the way of a decision, waterfalls, forms."""

import subprocess
import sys
from typing import Any

import pytest

from gateway.ingress.console.drawings.gates import draw_gates, suggest_change
from gateway.ingress.console.drawings.waterfall import WIDTH, draw_waterfall
from gateway.ingress.console.routes import find_route
from gateway.ingress.console.schema_forms import fields_of, read_value
from gateway.ingress.console.texts.foreign_text import mark_hidden, shorten

DECISION: dict[str, Any] = {
    "allowed": False,
    "reason_id": "ceiling-exceeded",
    "principal": "default|issuer|bob",
    "roles": ["support"],
    "scope": ["*"],
    "permission": "tool:crm.refund",
    "policies": [],
    "missing": ["tool:crm.refund (agent sales)"],
    "chain": [{"agent": "support", "permissions": ["tool:crm.*"]}, {"agent": "sales", "permissions": ["tool:crm.read"]}],
}


def span(name: str, parent: str, start: float, end: float | None, kind: str = "task") -> dict[str, Any]:
    at = "2026-01-01T00:00:{:09.6f}Z".format
    return {"id": name, "parent": parent, "kind": kind, "name": name, "start": at(start), "end": end and at(end), "outcome": "ok"}


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\x00", "\x1b", "\u2066", "\ufeff", "\U000e0041", "\u00ad"])
def test_a_hidden_character_is_a_visible_mark(hidden: str) -> None:
    assert mark_hidden(f"a{hidden}b") == f"a⟦U+{ord(hidden):04X}⟧b"


def test_a_long_text_says_how_much_is_missing() -> None:
    assert shorten("x" * 30, 10) == "x" * 10 + "… ⟦20 characters more⟧"


def test_the_gate_that_stopped_an_act_is_the_only_red_one() -> None:
    gates = {gate.title: gate.outcome for gate in draw_gates(DECISION)}
    assert gates == {
        "Rights of bob": "passes",
        "Scope of the token": "passes",
        "Agent support": "passes",
        "Agent sales": "stops here",
        "Policies": "not reached",
    }
    assert "agent set sales --ceiling" in suggest_change(DECISION)


def test_a_person_who_lacks_a_right_stops_the_act_before_all_agents() -> None:
    lacking = {**DECISION, "reason_id": "user-lacks-permission", "missing": ["tool:crm.refund (user)"]}
    assert next(gate.outcome for gate in draw_gates(lacking)) == "stops here"
    assert "role of bob" in suggest_change(lacking)


def test_a_waterfall_puts_each_span_below_its_cause_on_one_axis() -> None:
    spans = [span("a", "", 0, 4), span("turn", "a", 0, 4, "agent"), span("b", "turn", 1, 3), span("c", "b", 2, None, "tool")]
    fall = draw_waterfall({"spans": spans})
    assert [(row.span["name"], row.depth) for row in fall.rows] == [("a", 0), ("b", 1), ("c", 2)]
    assert fall.seconds == 4 and fall.rows[0].width == WIDTH
    assert (fall.rows[1].x, fall.rows[1].width) == (WIDTH / 4, WIDTH / 2)
    assert all(row.x + row.width <= WIDTH for row in fall.rows)


def test_a_form_returns_the_types_of_its_schema() -> None:
    schema = {"properties": {"n": {"type": "integer"}, "on": {"type": "boolean"}, "pick": {"enum": [1, "two"]}, "deep": {"type": "array"}}}
    assert [field.kind for field in fields_of(schema)] == ["integer", "check", "choice", "json"]
    form = {"value.n": "7", "value.on": "true", "value.pick": '"two"', "value.deep": "[1]"}
    assert read_value(schema, form) == {"n": 7, "on": True, "pick": "two", "deep": [1]}
    assert read_value(schema, {"value.n": "", "value.on": ""}) == {}
    assert read_value(schema, {"value.on": "false"}) == {"on": False}


@pytest.mark.parametrize("path", ["/console/tasks/", "/console/tasks//x", "/console/tasks/a/b", "/consoles", "/console/tasks/" + "x" * 301])
def test_a_path_with_other_segments_is_no_page(path: str) -> None:
    found = find_route("GET", path)
    assert found is None or not found.names


def test_the_libraries_of_the_console_are_not_loaded_before_it_is_used() -> None:
    late = ("jinja2", "fastapi", "gateway.ingress.console.app", "gateway.ingress.oauth.sign_in.flow")
    loaded = f"import sys, gateway.server.app; print(sorted({set(late)} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True, timeout=120)
    assert shown.stdout.strip() == "[]"
