"""A few calls of what `make isolation` does with many, and that a crossing would be seen."""

from pathlib import Path

import httpx
import pytest

from tests.isolation.crossing import KINDS, differs, strange, two_people


async def test_nothing_of_one_person_reaches_the_other(tmp_path: Path, database_url: str) -> None:
    async with two_people(tmp_path / "home", database_url) as crossing:
        found = await crossing.go(20 * len(KINDS), 16)
    assert found.crossed == found.unanswered == []
    assert set(found.kinds.values()) == {20}
    assert found.upstream_sessions >= 2 and found.hop_tokens == 40


async def test_a_credential_of_the_other_is_seen(tmp_path: Path, database_url: str) -> None:
    async with two_people(tmp_path / "home", database_url) as crossing:
        crossing.digests["first"] = crossing.digests["second"]
        found = await crossing.go(2 * len(KINDS), 2)
    assert len(found.crossed) == 1 and found.crossed[0].startswith("credential of first")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("first asked first-3.", ""),
        ("first asked first-4.", "no answer"),
        ("first asked first-3. second asked x", "something of second"),
    ],
)
def test_a_word_of_the_other_is_seen(answer: str, said: str) -> None:
    assert strange("first", "first-3", answer).startswith(said) and bool(said) == bool(strange("first", "first-3", answer))


def test_an_answer_of_another_is_seen() -> None:
    answer = httpx.Response(200, json={"result": {"content": [{"text": '[["first", "second"], "first-1"]'}]}})
    assert "instead of" in differs(answer, [["first"], "first-1"])
    assert differs(httpx.Response(500, json={"error": 1}), []).startswith("no answer")
