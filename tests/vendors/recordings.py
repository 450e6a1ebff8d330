"""Every recording of a vendor, played back as the suite does it: to the vendor's adapter, or to the one of A2A where it speaks that."""

import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from inspect import isawaitable
from typing import Any

from adapters.conformance.checks import check_scenario
from adapters.conformance.recordings import Expectation, in_odd_chunks, in_one_chunk
from tests.adapters.a2a_client import test_dialects as dialects
from tests.adapters.replay import expectations, vendor_of
from tests.vendors.rows import RECORDING, Row

Check = Callable[[], Awaitable[None] | None]
DIALECT: dict[str, Callable[[dict[str, Any]], Awaitable[None] | None]] = {
    "state": dialects.test_a_recorded_turn_comes_out_as_expected,
    "asks": dialects.test_a_recorded_question_keeps_what_is_needed_to_answer_it,
    "cancels": dialects.test_a_recorded_cancellation_tells_the_truth,
    "reads": dialects.test_a_recorded_task_is_read,
    "refused": dialects.test_a_recorded_refusal_is_told_by_its_code,
    "card": dialects.test_a_recorded_card_says_which_version_to_speak,
}


async def replayed() -> list[Row]:
    """All there are, of every vendor."""
    return [*await of_adapters(expectations()), *await of_dialects(dialects.EXPECTED)]


async def of_adapters(expected: Sequence[Expectation]) -> list[Row]:
    """A row for each expectation file."""
    return [Row(each.vendor, each.scenario, RECORDING, await why_not(_checks(each))) for each in expected]


async def of_dialects(expected: Sequence[dict[str, Any]]) -> list[Row]:
    """A row for each exchange; a turn may have several."""
    rows = []
    for each in expected:
        vendor, _, name = each["recording"].partition("/")
        checks = (lambda check=check, each=each: check(each) for member, check in DIALECT.items() if member in each)
        rows.append(Row(vendor, f"{name}:{','.join(map(str, each['seqs']))}", RECORDING, await why_not(checks)))
    return rows


async def why_not(checks: Iterator[Check]) -> str:
    """What did not come out as expected; nothing when all did."""
    try:
        for check in checks:
            done = check()
            if isawaitable(done):
                await done
    except (AssertionError, LookupError, TypeError, ValueError, AttributeError) as wrong:
        place = traceback.extract_tb(wrong.__traceback__)[-1]
        return f"{type(wrong).__name__}: {wrong} ({place.line})" if str(wrong) else f"not so: {place.line}"
    return ""


def _checks(expectation: Expectation) -> Iterator[Check]:
    for pieces in (in_one_chunk, in_odd_chunks):
        yield lambda pieces=pieces: check_scenario(vendor_of(expectation.kind), expectation, pieces)
