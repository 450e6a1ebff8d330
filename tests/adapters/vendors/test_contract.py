"""The contract of an adapter, for every vendor of the catalogue: a new one joins by its line there and its expectation files."""

import inspect
import json
from functools import cache
from pathlib import Path

import pytest

from adapters.catalog import VENDORS
from adapters.conformance import VendorSuite
from adapters.conformance.suite import AdapterUnderTest
from adapters.contract import Event, Failed
from adapters.vendors.sdk.agent import CUT_OFF_TEXT, parse_events
from adapters.vendors.sdk.frames import End, Frame, SseFrame
from tests.adapters.replay import expectations, vendor_of

KINDS = sorted(VENDORS)
LINES_MAX = 200


@cache
def subjects() -> tuple[AdapterUnderTest, ...]:
    return tuple(AdapterUnderTest(vendor_of(kind), tuple(each for each in expectations() if each.kind == kind)) for kind in KINDS)


class TestVendors(VendorSuite):
    @classmethod
    def adapters_under_test(cls) -> list[AdapterUnderTest]:
        return list(subjects())


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_a_small_file(kind: str) -> None:
    vendor = vendor_of(kind)
    assert vendor.kind == kind
    assert len(Path(inspect.getfile(type(vendor))).read_text().splitlines()) <= LINES_MAX


def test_every_recording_is_of_a_kind_in_the_catalogue() -> None:
    assert {each.kind for each in expectations()} == set(KINDS)


def test_a_cut_is_said_whatever_the_reader_has() -> None:
    class Silent:
        def read(self, frame: Frame) -> list[Event]:
            return []

    assert [event.reason for event in parse_events(Silent(), [SseFrame("x", json.dumps({})), End(False)]) if isinstance(event, Failed)] == [
        CUT_OFF_TEXT
    ]
