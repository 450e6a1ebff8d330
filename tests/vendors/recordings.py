"""Every recording of a vendor, played back to its adapter as the suite does it: a row for each of its expectation files."""

import traceback
from collections.abc import Sequence

from tests.adapters import test_contract as contract
from tests.adapters.replay import Expectation, expectations, odd, whole
from tests.vendors.rows import RECORDING, Row


async def replayed(every: Sequence[Expectation] | None = None) -> list[Row]:
    """All there are, of every vendor."""
    found = expectations() if every is None else every
    return [Row(each.vendor, each.scenario, RECORDING, await why_not(each)) for each in found]


async def why_not(expectation: Expectation) -> str:
    """What did not come out as expected; nothing when all did."""
    try:
        await _check(expectation)
    except AssertionError as wrong:
        place = traceback.extract_tb(wrong.__traceback__)[-1]
        return f"{place.line}: {wrong}" if str(wrong) else f"not so: {place.line}"
    return ""


async def _check(expectation: Expectation) -> None:
    """Raises AssertionError."""
    for pieces in (whole, odd):
        if "turns" in expectation.said:
            await contract.test_a_recording_comes_out_as_expected(expectation, pieces)
        for body in expectation.said.get("bodies", ()):
            contract.test_a_body_is_read_as_expected(expectation, body, pieces)
    if "describe" in expectation.said:
        await contract.test_an_agent_is_described_as_expected(expectation)
