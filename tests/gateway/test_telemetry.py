"""Traces: what is kept, what is linked, what leaves the process."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry import ATTRIBUTES, PENDING_MAX, TEXT_MAX, Finished, Kind, Origin, Tracing, current_trace_id, origin

CALLER = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class Kept:
    """An exporter that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[Finished] = []

    def __call__(self, span: Finished) -> None:
        self.spans.append(span)

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.spans]


@pytest.fixture
def kept() -> Kept:
    return Kept()


def ticks() -> Iterator[int]:
    at = 1000
    while True:
        yield at
        at += 10


def tracing(kept: Kept, sample: float = 0.0, chance: float = 0.5) -> Tracing:
    clock = ticks()
    return Tracing(sample, kept, now=lambda: next(clock), chance=lambda: chance)


def test_one_trace_in_ten_is_kept(kept: Kept) -> None:
    chances = iter([n / 100 for n in range(100)])
    tracer = Tracing(0.1, kept, chance=lambda: next(chances))
    for _ in range(100):
        tracer.start("invoke_agent sales").finish()
    assert len(kept.spans) == 10


@pytest.mark.parametrize("outcome", ["error", "denied", "upstream", "anything-new"])
def test_an_unsampled_failure_keeps_its_whole_trace(kept: Kept, outcome: str) -> None:
    tracer = tracing(kept)
    with tracer.start("invoke_agent sales") as root:
        with tracer.child(root, "look up"):
            pass
        tracer.child(root, "execute_tool reserve", Kind.CLIENT).finish(outcome)
    assert kept.names == ["look up", "execute_tool reserve", "invoke_agent sales"]
    assert {span.trace_id for span in kept.spans} == {root.trace_id}
    assert [span.parent_id for span in kept.spans] == [root.span_id, root.span_id, ""]


@pytest.mark.parametrize("outcome", ["ok", "question", "canceled"])
def test_an_unsampled_ordinary_trace_leaves_nothing(kept: Kept, outcome: str) -> None:
    tracer = tracing(kept)
    root = tracer.start("invoke_agent sales")
    tracer.child(root, "look up").finish()
    root.finish(outcome)
    assert kept.spans == []


def test_a_failure_after_the_root_has_ended_is_kept(kept: Kept) -> None:
    tracer = tracing(kept)
    root = tracer.start("invoke_agent sales")
    late, later = tracer.child(root, "stream"), tracer.child(root, "other stream")
    root.finish()
    later.finish()
    late.finish("error")
    assert kept.names == ["stream"]


def test_an_exception_is_an_error_and_its_message_stays_here(kept: Kept) -> None:
    with pytest.raises(ValueError, match="secret"), tracing(kept).start("invoke_agent sales"):
        raise ValueError("secret")
    (span,) = kept.spans
    assert (span.outcome, span.attributes["error.type"]) == ("error", "ValueError")
    assert "secret" not in str(span)


def test_finishing_twice_counts_once(kept: Kept) -> None:
    with tracing(kept, sample=1.0).start("invoke_agent sales") as span:
        span.finish("denied")
    assert [(one.outcome, one.started, one.ended) for one in kept.spans] == [("denied", 1000, 1010)]


def test_a_callers_traceparent_is_a_link_and_never_decides_sampling(kept: Kept) -> None:
    tracer = tracing(kept, sample=0.1, chance=0.5)
    span = tracer.start("invoke_agent sales", traceparent=CALLER)
    assert not span.kept
    assert span.trace_id != "a" * 32
    assert span.traceparent.endswith("-00")
    span.finish("error")
    assert kept.spans[0].link == Origin("a" * 32, "b" * 16)
    assert kept.spans[0].parent_id == ""


def test_the_next_hop_gets_our_trace_and_no_baggage(kept: Kept) -> None:
    span = tracing(kept, sample=1.0).start("invoke_agent sales", traceparent=CALLER)
    assert span.headers == {"traceparent": f"00-{span.trace_id}-{span.span_id}-01"}
    assert origin(span.headers["traceparent"]) == Origin(span.trace_id, span.span_id)


@pytest.mark.parametrize(
    "value",
    [None, "", "x" * 55, CALLER.upper(), CALLER + "-x", "ff" + CALLER[2:], "00-" + "0" * 32 + CALLER[35:], CALLER[:36] + "0" * 16 + "-01"],
)
def test_an_invalid_traceparent_says_nothing(value: str | None) -> None:
    assert origin(value) is None


@given(st.text(max_size=60))
def test_no_traceparent_breaks_the_reader(value: str) -> None:
    read = origin(value)
    assert read is None or (len(read.trace_id), len(read.span_id)) == (32, 16)


def test_only_named_attributes_leave_and_they_are_short(kept: Kept) -> None:
    given_attributes = {"gen_ai.agent.name": "x" * 9999, "gen_ai.tool.call.arguments": "secret", "gen_ai.input.messages": "secret"}
    tracing(kept, sample=1.0).start("invoke_agent sales").finish("ok", given_attributes)
    assert kept.spans[0].attributes == {"gen_ai.agent.name": "x" * TEXT_MAX, "interlock.outcome": "ok"}
    assert not [name for name in ATTRIBUTES if "argument" in name or "message" in name or "prompt" in name]


def test_a_long_trace_waits_in_bounded_memory(kept: Kept) -> None:
    tracer = tracing(kept)
    root = tracer.start("invoke_agent sales")
    for _ in range(10 * PENDING_MAX):
        tracer.child(root, "poll").finish()
    root.finish("error")
    assert len(kept.spans) == PENDING_MAX + 1


async def test_each_request_has_its_own_trace_id() -> None:
    tracer = Tracing(0.0)

    async def request() -> tuple[str, str]:
        span = tracer.start("invoke_agent sales")
        await asyncio.sleep(0)
        return span.trace_id, current_trace_id()

    answers = await asyncio.gather(*(asyncio.create_task(request()) for _ in range(5)))
    assert all(made == seen for made, seen in answers)
    assert len({made for made, _ in answers}) == 5
