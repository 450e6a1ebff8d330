"""The changelog has the form of Keep a Changelog 1.1.0, and the version is one of Semantic Versioning 2.0.0."""

import re

import pytest

from adapters.version import VERSION
from tests.house.source import ROOT

SEMANTIC = re.compile(r"(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-[0-9A-Za-z.-]+)?")
RELEASE = re.compile(rf"\[({SEMANTIC.pattern})\] - \d{{4}}-\d\d-\d\d")
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def problems(text: str) -> list[str]:
    """What in a changelog has not its form: other headings, kinds twice in a version, releases out of order."""
    found, seen, releases = [], set[str](), list[tuple[int, ...]]()
    if not text.startswith("# Changelog\n") or "keepachangelog.com" not in text:
        found.append("no title, or no word of its form")
    for heading in re.findall(r"^(#{2,3} .*)$", text, re.MULTILINE):
        level, _, name = heading.partition(" ")
        if level == "##":
            seen.clear()
            if (release := RELEASE.fullmatch(name)) is not None:
                releases.append(tuple(int(part) for part in release[1].partition("-")[0].split(".")))
            elif name != "[Unreleased]" or releases:
                found.append(f"not [Unreleased] first, and no release: {name}")
        elif name not in KINDS or name in seen:
            found.append(f"not one of {', '.join(KINDS)}, or twice: {name}")
        seen.add(name)
    return found + (["releases are not newest first"] if releases != sorted(releases, reverse=True) else [])


def test_the_changelog_has_its_form() -> None:
    assert problems((ROOT / "CHANGELOG.md").read_text()) == []


def test_the_version_is_semantic() -> None:
    assert SEMANTIC.fullmatch(VERSION)


UNRELEASED = "# Changelog\n\nkeepachangelog.com\n\n## [Unreleased]\n\n### Added\n\n"
GOOD = f"{UNRELEASED}## [0.2.0] - 2026-01-02\n\n### Fixed\n\n## [0.1.0] - 2026-01-01\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("## [Unreleased]", "## Unreleased"),
        ("### Fixed", "### Operation"),
        ("### Fixed", "### Fixed\n\n### Fixed"),
        (" - 2026-01-02", ""),
        ("[0.2.0]", "[0.0.9]"),
        ("# Changelog\n", "# News\n"),
    ],
)
def test_another_form_is_found(before: str, after: str) -> None:
    assert problems(GOOD) == []
    assert problems(GOOD.replace(before, after, 1))
