"""Trace context: what is valid, and what log lines of a request name."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ingress.http.request_trace import RequestTraces
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import current_trace_id, trace_id_of, unsampled_traceparent, valid_traceparent

CALLER = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


@pytest.mark.parametrize(
    "value",
    [None, "", "x" * 55, CALLER.upper(), CALLER + "-x", "ff" + CALLER[2:], "00-" + "0" * 32 + CALLER[35:], CALLER[:36] + "0" * 16 + "-01"],
)
def test_an_invalid_traceparent_says_nothing(value: str | None) -> None:
    assert valid_traceparent(value) == ""


@given(st.text(max_size=60))
def test_no_traceparent_breaks_the_reader(value: str) -> None:
    assert valid_traceparent(value) in ("", value)


def test_a_trace_that_is_not_recorded_says_so() -> None:
    made = unsampled_traceparent("a" * 32)
    assert valid_traceparent(made) == made and trace_id_of(made) == "a" * 32 and made.endswith("-00")


async def test_each_request_has_its_own_trace_id() -> None:
    visits = RequestTraces(None, Metrics())

    async def request() -> tuple[str, str]:
        visit = visits.begin("a2a", "/agents", "")
        await asyncio.sleep(0)
        return visit.trace_id, current_trace_id()

    answers = await asyncio.gather(*(asyncio.create_task(request()) for _ in range(5)))
    assert all(made == seen for made, seen in answers)
    assert len({made for made, _ in answers}) == 5


async def test_a_message_that_comes_too_late_moves_no_request_to_another_trace() -> None:
    visit = RequestTraces(None, Metrics()).begin("mcp", "/mcp", CALLER)
    assert visit.trace_context.headers == {"traceparent": CALLER}
    visit.join("00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    assert visit.trace_context.trace_id == "a" * 32
