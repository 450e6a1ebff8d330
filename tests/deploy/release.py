"""Notes of a release: `python -m tests.deploy.release vX.Y.Z` prints them, or says what is missing. It needs no package but the product."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
TAG: Final = re.compile(r"v(\d+\.\d+\.\d+)")
MANIFESTS: Final = ("overlays/production", "migration")  # below examples/deploy/kubernetes, whose images have the version as tag
HEADING: Final = re.compile(r"^## \[(Unreleased|\d+\.\d+\.\d+)\](?: - (\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)


class NotReleasable(Exception):
    """The tag, the version and the changelog are not those of one release; the message says what to do."""


def versions_in(changelog: str) -> list[tuple[str, str]]:
    """The versions of a changelog with their days, the newest first; `Unreleased` has none."""
    return [(found[1], found[2] or "") for found in HEADING.finditer(changelog)]


def notes_of(tag: str, version: str, changelog: str) -> str:
    """The section of the changelog for a tag. Raises NotReleasable."""
    found = TAG.fullmatch(tag)
    if found is None or found[1] != version:
        raise NotReleasable(f"the tag {tag} is not v{version}, the version of adapters/version.py")
    sections = list(HEADING.finditer(changelog))
    at = next((index for index, each in enumerate(sections) if each[1] == version), None)
    if at is None or not sections[at][2]:
        raise NotReleasable(f"CHANGELOG.md has no section ## [{version}] - YYYY-MM-DD: docs/releasing.md says how to make it")
    end = sections[at + 1].start() if at + 1 < len(sections) else len(changelog)
    notes = changelog[sections[at].end() : end].strip()
    if not notes:
        raise NotReleasable(f"the section of {version} in CHANGELOG.md is empty")
    return f"{notes}\n"


def refuse_other_tags(version: str, manifests: Mapping[str, str]) -> None:
    """Compares the tags of images in kustomizations, by path. Raises NotReleasable for those of another version."""
    wrong = [path for path, text in manifests.items() if re.findall(r"newTag: ([\w.-]+)", text) != [version]]
    if wrong:
        raise NotReleasable(f"newTag is not {version} in {' and '.join(wrong)}")


def main(arguments: Sequence[str]) -> int:
    version = re.search(r'^VERSION = "(.+)"$', (ROOT / "adapters" / "version.py").read_text(), re.MULTILINE)
    assert version is not None
    if len(arguments) != 1:
        print("usage: python -m tests.deploy.release vX.Y.Z", file=sys.stderr)
        return 2
    paths = [f"examples/deploy/kubernetes/{name}/kustomization.yaml" for name in MANIFESTS]
    try:
        notes = notes_of(arguments[0], version[1], (ROOT / "CHANGELOG.md").read_text())
        refuse_other_tags(version[1], {path: (ROOT / path).read_text() for path in paths})
        print(notes, end="")
    except NotReleasable as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
