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
from adapters.conformance.checks import CREDENTIAL, message_of
from adapters.conformance.outcomes import fits, outcome
from adapters.conformance.playback import Playback as ReplayEgress
from adapters.conformance.recordings import Expectation, body_of, odd, whole
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
    "body_of",
    "call_of",
    "expectations",
    "fits",
    "gathered",
    "message_of",
    "odd",
    "outcome",
    "recorded",
    "vendor_of",
    "whole",
]

FOLDER = Path(__file__).parent / "transcripts"
URL = "http://vendor.test"


def recorded(vendor: str, scenario: str) -> tuple[dict[str, Any], ...]:
    """The exchanges of one scenario."""
    return recordings.exchanges(FOLDER / vendor / f"{scenario}.jsonl")


@cache
def expectations() -> tuple[Expectation, ...]:
    """All there are, of every vendor."""
    return tuple(each for folder in sorted(FOLDER.iterdir()) for each in recordings.expectations(folder))


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
