"""Days and moments are read as people write them, and a wrong one is answered with the forms that there are."""

from datetime import UTC, date, datetime, timedelta

import pytest
import typer

from gateway.cli.arguments.days import parse_day, parse_moment
from tests.fakes.gateway_api import GatewayApi
from tests.gateway.cli.conftest import CommandLine

TODAY = datetime.now(UTC).date()


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-01-31", date(2026, 1, 31)),
        ("today", TODAY),
        (" Yesterday ", TODAY - timedelta(days=1)),
        ("0d", TODAY),
        ("7d", TODAY - timedelta(days=7)),
        ("2w", TODAY - timedelta(days=14)),
        ("48h", TODAY - timedelta(days=2)),
    ],
)
def test_a_day_is_a_date_a_word_or_a_span_before_now(text: str, day: date) -> None:
    assert parse_day(text) in (day, day + timedelta(days=1))  # the test may run over midnight


@pytest.mark.parametrize("text", ["", "tomorrow", "7", "d", "2026-13-01", "999999w", "-1d", "7 days"])
def test_no_day_is_answered_with_the_forms(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="yesterday, or 36h, 7d, 4w"):
        parse_day(text)


def test_a_moment_is_a_day_a_time_or_a_span_from_now() -> None:
    assert parse_moment("2030-01-31") == datetime(2030, 1, 31, tzinfo=UTC)
    assert parse_moment("2030-01-31T12:00:00Z") == datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert abs(parse_moment("2d") - datetime.now(UTC) - timedelta(days=2)) < timedelta(minutes=5)
    with pytest.raises(typer.BadParameter, match="from now"):
        parse_moment("soon")


def test_costs_since_yesterday_are_asked_for_by_their_day(interlock: CommandLine, api: GatewayApi) -> None:
    total = {"amount": None, "currency": "USD", "unpriced": 0}
    for day in (TODAY, TODAY - timedelta(days=1)):
        api.on(f"GET /api/cost?by=day&everybody=false&since={day}", {"items": [], "next": None, "total": total})
    assert interlock("cost", "--since", "yesterday").code == 0
    wrong = interlock("cost", "--since", "noon")
    assert wrong.code == 2 and "'noon' is not a day" in wrong.err and "yesterday" in wrong.err
