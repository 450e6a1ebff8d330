"""The suite for adapters of others finds what an adapter does wrong: each check fails for an adapter that breaks just that."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace as changed
from pydantic import ConfigDict

from adapters.conformance import checks
from adapters.conformance.checks import BAD_RESPONSES
from adapters.conformance.recordings import Expectation, in_odd_chunks, load_expectations
from adapters.conformance.suite import AdapterUnderTest, VendorSuite
from adapters.contract import Done, Event, Failed, Turn, UpstreamFault
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, VendorOptions
from adapters.vendors.sdk.connection import Request, VendorConnection
from adapters.vendors.sdk.frames import Frame, SseFrame
from examples.riddle_adapter.riddle import Riddle, RiddleOptions, RiddleReader
from tests.house.source import ROOT

FOLDER = ROOT / "examples" / "riddle_adapter" / "recordings"
SCENARIOS = {each.scenario: each for each in load_expectations(FOLDER)}
QUESTION, FAILURE = SCENARIOS["question"], SCENARIOS["failure"]


class Loose(RiddleOptions):
    model_config = ConfigDict(extra="allow")


class Remembers(Riddle):
    """Keeps state of its own."""

    def __init__(self) -> None:
        self.seen = 1


class Careless(Riddle):
    """Takes any option, describes another agent and confirms what was not confirmed."""

    options = Loose

    async def describe(self, line: VendorConnection[Any]) -> AgentFacts:
        await line.request_json(Request("GET", "/about"))
        return AgentFacts("Sphinx", "Somebody else.")

    async def cancel(self, ref: Any, line: VendorConnection[Any]) -> CancelOutcome:
        await super().cancel(ref, line)
        return CancelOutcome.UNKNOWN


class Polite(Riddle):
    """Turns what breaks off or is refused into a success."""

    async def run(self, turn: Turn, line: VendorConnection[Any]) -> AsyncIterator[Event]:
        with suppress(UpstreamFault):
            async for event in super().run(turn, line):
                yield Done() if isinstance(event, Failed) else event
            return
        yield Done()


class Talkative(Riddle):
    """Tells callers what the agent said of its inside, and asks for something else than was recorded."""

    async def run(self, turn: Turn, line: VendorConnection[Any]) -> AsyncIterator[Event]:
        try:
            async for event in super().run(changed(turn, message=checks.build_message({"text": "else"})), line):
                yield event
        except UpstreamFault as fault:
            yield Failed(fault.detail, kind=fault.kind)


class Twice(Riddle):
    """Ends each turn twice."""

    async def run(self, turn: Turn, line: VendorConnection[Any]) -> AsyncIterator[Event]:
        async for event in super().run(turn, line):
            yield event
        yield Done()


class Strict(Riddle):
    """Trips over whatever it does not know."""

    async def run(self, turn: Turn, line: VendorConnection[Any]) -> AsyncIterator[Event]:
        frames = line.stream_frames(Request("POST", "/turns", {}))
        reader = StrictReader(turn.session)
        async for frame in frames:
            for event in reader.take(frame):
                yield event


class StrictReader(RiddleReader):
    def read(self, frame: Frame) -> Iterator[Event]:
        if isinstance(frame, SseFrame) and "x-unknown" in frame.data:
            raise KeyError("x-unknown")
        return super().read(frame)


class Kindless(Riddle):
    """Fails without a kind."""

    async def run(self, turn: Turn, line: VendorConnection[Any]) -> AsyncIterator[Event]:
        try:
            async for event in super().run(turn, line):
                yield event
        except UpstreamFault as fault:
            yield Failed(fault.public, retryable=fault.retryable)


class Assuming(Riddle):
    """Confirms a cancellation that it never asked the agent for."""

    async def cancel(self, ref: Any, line: VendorConnection[Any]) -> CancelOutcome:
        return CancelOutcome.CANCELED


class Shouting(Riddle):
    kind = "Riddle"
    features = Features(polls=True)


class Optionless(Riddle):
    options = dict  # type: ignore[assignment]  # as somebody may write it


BROKEN: list[tuple[type[Riddle], Callable[[Riddle], Awaitable[None] | None]]] = [
    (Remembers, checks.check_shape),
    (Shouting, checks.check_shape),
    (Optionless, checks.check_shape),
    (Careless, lambda vendor: checks.check_options(vendor, QUESTION)),
    (Careless, lambda vendor: checks.check_description(vendor, QUESTION)),
    (Careless, lambda vendor: checks.check_cancellation(vendor, QUESTION)),
    (Talkative, lambda vendor: checks.check_turns(vendor, QUESTION)),
    (Talkative, lambda vendor: checks.check_bad_response(vendor, QUESTION, BAD_RESPONSES[0])),
    (Talkative, lambda vendor: checks.check_credential(vendor, QUESTION)),
    (Polite, lambda vendor: checks.check_cuts(vendor, QUESTION)),
    (Polite, lambda vendor: checks.check_bad_response(vendor, QUESTION, BAD_RESPONSES[-1])),
    (Kindless, lambda vendor: checks.check_bad_response(vendor, QUESTION, BAD_RESPONSES[0])),
    (Assuming, lambda vendor: checks.check_scenario(vendor, QUESTION)),
    (Twice, lambda vendor: checks.check_repeats(vendor, QUESTION)),
    (Strict, lambda vendor: checks.check_unknown_members(vendor, QUESTION)),
]


@pytest.mark.parametrize(("vendor", "check"), BROKEN, ids=[f"{vendor.__name__}-{place}" for place, (vendor, _) in enumerate(BROKEN)])
async def test_a_broken_adapter_fails(vendor: type[Riddle], check: Callable[[Riddle], Awaitable[None] | None]) -> None:
    await _done(check(Riddle()))
    with pytest.raises(AssertionError):
        await _done(check(vendor()))


async def _done(result: Awaitable[None] | None) -> None:
    if result is not None:
        await result


async def test_a_bad_answer_has_to_be_a_failure_of_the_right_kind() -> None:
    busy = next(each for each in BAD_RESPONSES if each.name == "429")
    for vendor, bad in ((Riddle(), busy), (Riddle(), BAD_RESPONSES[0])):
        await checks.check_bad_response(vendor, QUESTION, bad)
    with pytest.raises(AssertionError, match="AGENT_BUSY"):
        await checks.check_bad_response(Talkative(), QUESTION, busy)


@pytest.mark.parametrize("change", ["state", "artifacts", "reason"])
async def test_an_expectation_that_does_not_hold_fails_in_pieces_too(change: str) -> None:
    turn = {**FAILURE.document["turns"][0], change: "something else"}
    with pytest.raises(AssertionError, match="recordings-failure"):
        await checks.check_scenario(Riddle(), Expectation(FOLDER, "failure", {**FAILURE.document, "turns": [turn]}), in_odd_chunks)


async def test_a_scenario_that_expects_nothing_fails() -> None:
    with pytest.raises(AssertionError, match="expects nothing"):
        await checks.check_scenario(Riddle(), Expectation(FOLDER, "failure", {"kind": "riddle", "upstream": {}}))


@pytest.mark.parametrize("scenarios", [(), (Expectation(FOLDER, "x", {"kind": "riddle"}),), (Expectation(FOLDER, "x", {"kind": "other"}),)])
def test_an_adapter_that_no_scenario_shows_fails(scenarios: tuple[Expectation, ...]) -> None:
    with pytest.raises(AssertionError):
        VendorSuite().test_the_adapter_is_shown_by_scenarios_of_its_kind(AdapterUnderTest(Riddle(), scenarios))


def test_an_adapter_that_streams_is_shown_by_a_stream() -> None:
    whole = Expectation(FOLDER, "question", {**QUESTION.document, "whole": True})
    with pytest.raises(AssertionError, match="streams"):
        VendorSuite().test_the_adapter_is_shown_by_scenarios_of_its_kind(AdapterUnderTest(Riddle(), (whole,)))


def test_options_are_those_of_the_vendor() -> None:
    assert issubclass(Riddle.options, VendorOptions)
