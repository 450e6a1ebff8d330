"""A recording that comes out otherwise than expected is a row that failed."""

from dataclasses import replace

from tests.adapters.replay import expectations
from tests.vendors.recordings import replayed

ONE = next(each for each in expectations() if str(each) == "langgraph-two_questions_stream")


async def test_a_recording_that_comes_out_as_expected_passes() -> None:
    (row,) = await replayed([ONE])
    assert (row.vendor, row.scenario, row.against, row.why) == ("langgraph", "two_questions_stream", "recording", "")


async def test_an_expectation_that_does_not_hold_fails_and_says_where() -> None:
    turns = [{**turn, "state": "CANCELED"} for turn in ONE.said["turns"]]
    (row,) = await replayed([replace(ONE, said={**ONE.said, "turns": turns})])
    assert row.outcome == "fail" and "CANCELED" in row.why
    (row,) = await replayed([replace(ONE, said={**ONE.said, "upstream": {"assistant": "other"}})])
    assert row.outcome == "fail" and "problems" in row.why
