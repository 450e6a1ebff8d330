"""Recorded exchanges with agents of vendors, played back to their adapters behind the gateway's guard."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from adapters.catalog import VENDORS
from adapters.conformance import recordings
from adapters.conformance.checks import CREDENTIAL, build_message
from adapters.conformance.outcomes import matches_expectation, outcome
from adapters.conformance.playback import PlaybackEgress as ReplayEgress
from adapters.conformance.recordings import Expectation, in_odd_chunks, in_one_chunk, recorded_body
from adapters.contract import Call, Event
from adapters.vendors.sdk.agent import Vendor
from policies.delegation.rulings import Grant
from registry.cards.card import Registration
from tests.fakes.a2a_calls import call_to

__all__ = [
    "CREDENTIAL",
    "FOLDER",
    "URL",
    "Expectation",
    "ReplayEgress",
    "build_message",
    "call_of",
    "expectations",
    "gathered",
    "in_odd_chunks",
    "in_one_chunk",
    "matches_expectation",
    "outcome",
    "recorded",
    "recorded_body",
    "vendor_of",
]

FOLDER = Path(__file__).parent / "transcripts"
URL = "http://vendor.test"


def recorded(vendor: str, scenario: str) -> tuple[dict[str, Any], ...]:
    """The exchanges of one scenario."""
    return recordings.load_exchanges(FOLDER / vendor / f"{scenario}.jsonl")


@cache
def expectations() -> tuple[Expectation, ...]:
    """All there are, of every vendor."""
    return tuple(each for folder in sorted(FOLDER.iterdir()) for each in recordings.load_expectations(folder))


def vendor_of(kind: str) -> Vendor:
    module, _, name = VENDORS[kind].partition(":")
    made: Vendor = getattr(import_module(module), name)()
    return made


def call_of(kind: str, upstream: Mapping[str, Any], url: str = URL, seconds: float = 60.0) -> Call:
    """A call to an agent of a vendor, with an operator's credential."""
    made = call_to(url, seconds)
    grant: Grant = made.grant
    target = Registration(**{name: getattr(made.target, name) for name in Registration.__slots__} | {"kind": kind, "upstream": upstream})
    return Call(grant, target, made.deadline, {"x-api-key": CREDENTIAL})


async def gathered(events: AsyncIterator[Event]) -> list[Event]:
    """All events of a turn."""
    async with asyncio.timeout(60), aclosing(events) as arriving:  # type: ignore[type-var]  # every adapter's run is a generator
        return [event async for event in arriving]
