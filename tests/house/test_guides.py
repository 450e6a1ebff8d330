"""Guides: the README leads to each of them, and every link between papers leads somewhere."""

import re
from collections.abc import Iterator

import pytest

from tests.house.source import ROOT

PAPERS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Of its headings, as forges make them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(CODE.sub("", text))}


def lost(text: str, name: str) -> Iterator[str]:
    """Links of one paper, `name` below the root, that lead nowhere."""
    for link in LINK.findall(CODE.sub("", text)):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (ROOT / name).parent / path if path else ROOT / name
        known = target.exists() and (not anchor or anchor in anchors(text if not path else target.read_text()))
        if not known:
            yield link


def test_the_readme_leads_to_every_guide() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [paper.name for paper in PAPERS if paper.parent.name == "docs" and f"(docs/{paper.name})" not in readme] == []


@pytest.mark.parametrize("name", [paper.relative_to(ROOT).as_posix() for paper in PAPERS])
def test_every_link_leads_somewhere(name: str) -> None:
    assert list(lost((ROOT / name).read_text(), name)) == []


def test_a_link_to_nothing_is_found() -> None:
    text = "# One Thing, `two`\n[a](#one-thing-two) [b](#three) [c](docs/nothing.md) [d](README.md#nothing) [e](https://a.example/x)"
    assert list(lost(text, "README.md")) == ["#three", "docs/nothing.md", "README.md#nothing"]
