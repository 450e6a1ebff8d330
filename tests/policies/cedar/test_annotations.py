"""What the annotations of a policy mean: whom it asks and for how long, and what it has added up."""

from typing import Any

import pytest

from policies.cedar.annotations import AskAnnotation, combine_asks, parse_ask, parse_total

DAY = 86_400


def asked(effect: str = "forbid", **annotations: str | None) -> AskAnnotation | None:
    return parse_ask({"effect": effect, "annotations": annotations})


def test_a_policy_asks_nobody_unless_it_says_so() -> None:
    assert parse_ask({"effect": "forbid"}) is None
    assert asked(id="x", total="amount") is None and asked("permit") is None


def test_one_person_is_asked_and_the_answer_is_good_for_an_hour_unless_it_is_said() -> None:
    assert asked(ask="sure?") == AskAnnotation("sure?") == AskAnnotation("sure?", approvals=1, seconds=3600)


@pytest.mark.parametrize("count", range(1, 6))
def test_up_to_five_people_can_be_needed(count: int) -> None:
    found = asked(ask="sure?", approvals=str(count))
    assert found and found.approvals == count


@pytest.mark.parametrize(
    ("span", "seconds"),
    [("1s", 1), ("90s", 90), ("30m", 1800), ("1h", 3600), ("2d", 2 * DAY), ("7d", 7 * DAY), ("604800s", 7 * DAY), ("168h", 7 * DAY)],
)
def test_an_answer_is_good_for_a_span_of_up_to_seven_days(span: str, seconds: int) -> None:
    found = asked(ask="sure?", expires=span)
    assert found and found.seconds == seconds


@pytest.mark.parametrize("span", [None, "", "0s", "1", "h", "1w", "-1h", "1.5h", "01h", " 1h", "1h ", "8d", "604801s", "1234567s", "1h30m"])
def test_anything_else_is_no_span(span: str | None) -> None:
    with pytest.raises(ValueError, match="@expires must be a duration"):
        asked(ask="sure?", expires=span)


@pytest.mark.parametrize("count", [None, "", "0", "6", "-1", "1.0", "01", " 1", "five"])
def test_anything_else_is_no_number_of_people(count: str | None) -> None:
    with pytest.raises(ValueError, match="@approvals must be a number from 1 to 5"):
        asked(ask="sure?", approvals=count)


@pytest.mark.parametrize("prompt", [None, "", " ", "two\nlines", "a\ttab", "\u202eturned", "x" * 501])
def test_people_are_asked_in_one_line_that_can_be_shown(prompt: str | None) -> None:
    with pytest.raises(ValueError, match="@ask needs one line of text, of at most 500 characters"):
        asked(ask=prompt)
    assert asked(ask="x" * 500) == AskAnnotation("x" * 500)
    assert asked(ask="Größer als 500 €?") == AskAnnotation("Größer als 500 €?")


def test_only_a_forbid_can_be_lifted() -> None:
    with pytest.raises(ValueError, match="@ask belongs on a forbid"):
        asked("permit", ask="sure?")


@pytest.mark.parametrize("name", ["approvals", "expires"])
def test_what_says_more_about_a_question_needs_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"@{name} needs an @ask"):
        asked(**{name: "1"})


@pytest.mark.parametrize("name", ["amount", "_a1", "A", "a" * 64])
def test_an_argument_is_added_up_by_its_name(name: str) -> None:
    assert parse_total({"annotations": {"total": name}}) == name


@pytest.mark.parametrize("policy", [{}, {"annotations": {}}, {"annotations": {"id": "x"}}, {"annotations": {"total": None}}])
def test_nothing_is_added_up_unless_it_is_said(policy: dict[str, Any]) -> None:
    assert parse_total(policy) == ""


@pytest.mark.parametrize("name", ["", "a.b", "1a", "a b", "a-b", "a" * 65, "ä"])
def test_what_can_be_added_up_is_one_argument(name: str) -> None:
    with pytest.raises(ValueError, match="@total must name one argument"):
        parse_total({"annotations": {"total": name}})


def test_several_policies_combine_all_approvers_highest_count_and_shortest_time() -> None:
    first, second, third = AskAnnotation("Is it safe?", 2, 60), AskAnnotation("Is it paid?", 1, 30), AskAnnotation("Is it safe?", 1, 90)
    assert combine_asks([first, second, third]) == AskAnnotation("Is it safe? Is it paid?", 2, 30)
    assert combine_asks(iter([second])) == second
