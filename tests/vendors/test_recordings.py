"""A recording that comes out otherwise than expected is a row that failed."""

from dataclasses import replace

import pytest

from tests.adapters.a2a_client.test_dialects import EXPECTED
from tests.adapters.replay import expectations
from tests.vendors.recordings import of_adapters, of_dialects

ONE = next(each for each in expectations() if str(each) == "langgraph-two_questions_stream")


async def test_a_recording_that_comes_out_as_expected_passes() -> None:
    (row,) = await of_adapters([ONE])
    assert (row.vendor, row.scenario, row.against, row.why) == ("langgraph", "two_questions_stream", "recording", "")


async def test_an_expectation_that_does_not_hold_fails_and_says_where() -> None:
    turns = [{**turn, "state": "CANCELED"} for turn in ONE.document["turns"]]
    (row,) = await of_adapters([replace(ONE, document={**ONE.document, "turns": turns})])
    assert row.outcome == "fail" and "CANCELED" in row.why
    (row,) = await of_adapters([replace(ONE, document={**ONE.document, "upstream": {"assistant": "other"}})])
    assert row.outcome == "fail" and "recorded was 'echo'" in row.why


async def test_agents_that_speak_a2a_themselves_have_rows_too() -> None:
    for row in await of_dialects(EXPECTED[:3]):
        assert (row.vendor, row.scenario.partition(":")[0], row.why) == ("adk", "native_a2a", "")


@pytest.mark.parametrize(
    ("member", "other"), [("state", "CANCELED"), ("asks", []), ("cancels", True), ("reads", "FAILED"), ("refused", 1), ("card", {})]
)
async def test_every_claim_about_an_exchange_is_checked(member: str, other: object) -> None:
    one = next(each for each in EXPECTED if member in each)
    (row,) = await of_dialects([{**one, member: other}])
    assert row.outcome == "fail"
