"""The adapter keeps the contract of the gateway. Run it by `pytest` where the gateway and this distribution are installed."""

from pathlib import Path

from riddle import Riddle

from adapters.conformance import VendorSuite


class TestRiddle(VendorSuite):
    vendor = Riddle
    recordings = Path(__file__).parent / "recordings"
