"""Moments of cron expressions where clocks are set, and what becomes of moments that were missed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.workflows.cloud_events.cron import next_moment
from gateway.workflows.cloud_events.schedules import LATE_US, MISSED_MAX, ScheduleTerms

BERLIN = "Europe/Berlin"
FORWARD, BACK = "2026-03-29", "2026-10-25"  # clocks go from 2:00 to 3:00, and from 3:00 to 2:00
HOUR = 3_600_000_000


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1_000_000)


MOMENTS = [
    ("0 6 * * *", "", f"{FORWARD}T05:00:00Z", f"{FORWARD}T06:00:00Z"),
    ("0 6 * * *", BERLIN, "2026-01-10T00:00:00Z", "2026-01-10T05:00:00Z"),
    ("0 6 * * *", BERLIN, "2026-07-10T00:00:00Z", "2026-07-10T04:00:00Z"),
    ("0 6 * * *", "Pacific/Auckland", "2026-07-10T00:00:00Z", "2026-07-10T18:00:00Z"),
    ("30 2 * * *", BERLIN, f"{FORWARD}T00:00:00+01:00", f"{FORWARD}T03:00:00+02:00"),  # the moment does not exist: the end of the gap
    ("30 2 * * *", BERLIN, f"{FORWARD}T03:00:00+02:00", "2026-03-30T02:30:00+02:00"),
    ("30 2 * * *", BERLIN, f"{BACK}T00:00:00+02:00", f"{BACK}T02:30:00+02:00"),  # the moment comes twice: the first one
    ("30 2 * * *", BERLIN, f"{BACK}T02:30:00+02:00", "2026-10-26T02:30:00+01:00"),
    ("30 2 * * *", BERLIN, f"{BACK}T02:15:00+01:00", "2026-10-26T02:30:00+01:00"),  # from within the hour that comes again
    ("0 * * * *", BERLIN, f"{BACK}T02:00:00+02:00", f"{BACK}T02:00:00+01:00"),  # every hour is every hour
    ("0 * * * *", BERLIN, f"{FORWARD}T01:00:00+01:00", f"{FORWARD}T03:00:00+02:00"),
]


@pytest.mark.parametrize(("expression", "zone", "after", "expected"), MOMENTS)
def test_a_moment_is_one_of_its_zone(expression: str, zone: str, after: str, expected: str) -> None:
    assert next_moment(expression, us(after), zone) == us(expected)


EXPRESSIONS = st.sampled_from(["30 2 * * *", "0 * * * *", "*/7 1-3 * * *", "15 2,3 * * 0", "59 23 * * *"])


@given(EXPRESSIONS, st.sampled_from([FORWARD, BACK]), st.integers(-2 * 86_400, 2 * 86_400))
def test_a_next_moment_is_later_than_the_one_before(expression: str, day: str, seconds: int) -> None:
    after = us(f"{day}T00:00:00Z") + seconds * 1_000_000
    assert after < next_moment(expression, after, BERLIN) <= after + 15 * 86_400_000_000


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "../../etc/passwd", "Europe", "europe berlin", "\0"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        next_moment("0 6 * * *", 0, zone)


DUE = us("2026-06-01T10:00:00Z")


def terms(missed: str, *, cron: str = "", every: int = 0) -> ScheduleTerms:
    return ScheduleTerms("v", "nightly", 60, every, cron, missed=missed)


BOTH = [{"every": 3_600_000}, {"cron": "0 * * * *"}]


@pytest.mark.parametrize("timing", BOTH, ids=["every", "cron"])
def test_the_document_says_what_becomes_of_missed_moments(timing: dict[str, Any]) -> None:
    late, in_time = DUE + 3 * HOUR + 30 * LATE_US, DUE + 3 * HOUR + LATE_US // 2
    following = DUE + 4 * HOUR
    each = [DUE + number * HOUR for number in range(4)]
    for now, skipping in ((late, []), (in_time, each[-1:])):
        assert terms("once", **timing).passed(DUE, now) == ([DUE], following)
        assert terms("skip", **timing).passed(DUE, now) == (skipping, following)
        assert terms("all", **timing).passed(DUE, now) == (each, following)


@pytest.mark.parametrize("timing", BOTH, ids=["every", "cron"])
def test_many_missed_moments_are_brought_in_parts(timing: dict[str, Any]) -> None:
    moments, following = terms("all", **timing).passed(DUE, DUE + 250 * HOUR)
    assert (len(moments), moments[-1]) == (MISSED_MAX, DUE + (MISSED_MAX - 1) * HOUR)
    assert following == DUE + MISSED_MAX * HOUR


def test_a_zone_that_is_written_out_is_that_of_the_offset() -> None:
    summer = datetime(2026, 7, 1, tzinfo=UTC)
    berlin, utc = (next_moment("0 6 * * *", int(summer.timestamp() * 1e6), zone) for zone in (BERLIN, "UTC"))
    assert timedelta(microseconds=utc - berlin) == timedelta(hours=2)
