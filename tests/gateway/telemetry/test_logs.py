"""Log lines: one line of JSON each, bounded, without secrets."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.logs import HIDDEN, VALUE_MAX, configure_logging, describe_line, json_line

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


@pytest.fixture
def sink() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (root.handlers, root.level)
    stream = io.StringIO()
    configure_logging("info", lambda: "f" * 32, stream)
    yield stream
    structlog.reset_defaults()
    root.handlers, root.level = before


def lines(sink: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(text) for text in sink.getvalue().splitlines()]


def test_a_line_has_time_level_event_and_trace(sink: io.StringIO) -> None:
    structlog.get_logger("gateway.x").warning("agent_down", agent="sales", tries=3)
    (shown,) = lines(sink)
    assert shown.pop("at").endswith("Z")
    assert shown == {"trace_id": "f" * 32, "level": "warning", "event": "agent_down", "agent": "sales", "tries": 3}


def test_what_is_below_the_level_is_not_written(sink: io.StringIO) -> None:
    structlog.get_logger().debug("noise")
    assert sink.getvalue() == ""


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "\x1b[2Ja", "a\x7fb", "a\x9bb", "a\u2028b", "a\u202eb", "\x00", "\ud800"])
def test_control_characters_arrive_escaped_on_one_line(sink: io.StringIO, text: str) -> None:  # attack LOG-01
    structlog.get_logger().info("said", text=text)
    written = sink.getvalue()
    assert written.count("\n") == 1
    assert all(" " <= character <= "~" for character in written[:-1])
    assert lines(sink)[0]["text"] == text


@pytest.mark.parametrize(
    "fields",
    [
        {"authorization": "Bearer abcdefgh12345678"},
        {"client_secret": "abc"},
        {"token": "abc"},
        {"headers": {"Cookie": "abc", "Authorization": "abc"}},
        {"detail": f"refused {JWT} because"},
        {"detail": "header was Bearer abcdefgh12345678"},
        {"detail": ["Basic YWxpY2U6YWJjZGVm"]},
        {"url": "postgresql://alice:abcdef@db.example/x"},
        {"url": "https://x.example/cb?code=abcdef&x=1"},
        {"password": b"abcdef"},
    ],
)
def test_secrets_are_hidden_by_name_and_by_shape(fields: dict[str, Any]) -> None:  # attack LOG-02
    written = json_line(describe_line({"event": "x", **fields}, ""))
    assert HIDDEN in written
    assert not any(secret in written for secret in ("abc", "YWxp", "eyJ"))


@pytest.mark.parametrize("fields", [{"token_id": "t_1"}, {"total_tokens": 12}, {"path": "/agents/sales"}, {"reason": "bearer missing"}])
def test_ordinary_fields_are_shown(fields: dict[str, Any]) -> None:
    assert json.loads(json_line(describe_line({"event": "x", **fields}, ""))).items() >= fields.items()


def test_long_and_deep_values_are_bounded() -> None:  # attack LOG-01
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    written = json_line(
        describe_line({"event": "x", "text": "x" * 10**6, "many": list(range(10**5)), "deep": deep, "nan": float("nan")}, "")
    )
    assert len(written) < 2 * VALUE_MAX
    assert json.loads(written)["text"].startswith("x" * VALUE_MAX + "…")


def test_a_secret_at_the_cut_stays_hidden() -> None:
    written = json_line(describe_line({"event": "x", "text": "x" * (VALUE_MAX - 20) + " " + JWT + "y" * 5000}, ""))
    assert "eyJ" not in written


def test_an_exception_is_one_line_without_the_values_of_variables(sink: io.StringIO) -> None:
    private = "hunter22"
    try:
        raise ValueError(f"bad\nthing {JWT}" if private else "")
    except ValueError:
        structlog.get_logger().exception("request_failed")
    (shown,) = lines(sink)
    assert (shown["level"], shown["event"]) == ("error", "request_failed")
    assert shown["exception"]["error"] == "ValueError"
    assert "test_logs.py" in shown["exception"]["where"]
    assert "eyJ" not in sink.getvalue()
    assert private not in sink.getvalue()


def test_libraries_write_the_same_lines_from_warnings_on(sink: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").info("Started")
    logging.getLogger("uvicorn.access").warning("GET /x?code=1")
    logging.getLogger("some.library").warning("lost %s", JWT)
    (shown,) = lines(sink)
    assert (shown["logger"], shown["level"], shown["event"]) == ("some.library", "warning", f"lost {HIDDEN}")


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.recursive(st.none() | st.text() | st.floats() | st.binary(), st.lists)))
def test_anything_becomes_one_line_of_json(fields: dict[str, Any]) -> None:
    written = json_line(describe_line({"event": "x", **fields}, ""))
    assert "\n" not in written
    assert isinstance(json.loads(written), dict)
