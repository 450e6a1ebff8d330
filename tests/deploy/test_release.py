"""The release workflow, the changelog, and the version that a build tells."""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import yaml

from adapters.version import VERSION
from tests.deploy.release import MANIFESTS, NotReleasable, notes_of, refuse_other_tags, versions_in
from tests.house.source import ROOT

WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CHANGELOG: Final = (ROOT / "CHANGELOG.md").read_text()
KINDS: Final = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
PINNED: Final = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
WRITES: Final = {  # what a job of the release may write, besides nothing
    "build": {"id-token", "attestations"},
    "image": {"packages", "id-token", "attestations"},
    "publish": {"contents"},
}


def problems(workflow: Any) -> Iterator[str]:
    """What makes a workflow unsafe: actions that can move, rights that no job needs, secrets, and text of others in a shell."""
    if workflow.get("permissions") != {}:
        yield "jobs have rights that they do not name"
    if workflow[True].keys() != {"push"}:  # YAML 1.1 reads `on` as true
        yield "it runs for more than pushed tags"
    for name, job in workflow["jobs"].items():
        written = {right for right, access in job.get("permissions", {}).items() if access == "write"}
        if written - WRITES.get(name, set()) or "permissions" not in job:
            yield f"{name} may write {sorted(written)}"
        if "timeout-minutes" not in job:
            yield f"{name} has no end"
        yield from (f"{name} {problem}" for step in job["steps"] for problem in _step_problems(step))


def _step_problems(step: Any) -> Iterator[str]:
    if "uses" in step and not PINNED.fullmatch(step["uses"]):
        yield f"uses {step['uses']}, which can move"
    if "actions/checkout@" in step.get("uses", "") and step.get("with", {}).get("persist-credentials") is not False:
        yield "leaves its token in the checkout"
    if "${{" in step.get("run", ""):
        yield "has text of others in a shell"
    if "secrets." in str(step):
        yield "needs a secret"


@pytest.fixture
def release() -> Any:
    return yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())


def test_the_release_can_do_what_it_must_and_no_more(release: Any) -> None:
    assert list(problems(release)) == [] and len(WORKFLOWS) >= 1


def test_each_pinned_action_says_its_version() -> None:
    lines = [line for file in WORKFLOWS for line in file.read_text().splitlines() if "uses:" in line]
    assert len(lines) > 8 and [line for line in lines if not re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)] == []


def test_nothing_is_published_before_it_was_checked_built_and_approved(release: Any) -> None:
    jobs = release["jobs"]
    assert jobs["build"]["needs"] == jobs["image"]["needs"] == "check"
    assert set(jobs["publish"]["needs"]) == {"build", "image"} and jobs["publish"]["environment"] == "release"
    assert any(step.get("run") == ".ci/run" for step in jobs["check"]["steps"])


def test_wheel_and_image_are_built_with_hashes_and_attested(release: Any) -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    installs = re.findall(r"pip install (.*)", text)
    assert installs == ["--require-hashes -r requirements-build.lock"] and "make sbom" in text
    used = {name: [step["uses"].split("@")[0] for step in job["steps"] if "uses" in step] for name, job in release["jobs"].items()}
    assert {"actions/attest-build-provenance", "actions/attest-sbom"} <= set(used["build"])
    assert {"docker/build-push-action", "actions/attest-build-provenance"} <= set(used["image"])
    (push,) = [step["with"] for step in release["jobs"]["image"]["steps"] if "build-push" in step.get("uses", "")]
    assert push["target"] == "gateway" and push["sbom"] is True and "BASE=" in push["build-args"]
    assert "@$digest" in text


SPOILS: Final[list[tuple[str, Callable[[Any], object]]]] = [
    ("can move", lambda w: w["jobs"]["check"]["steps"][0].update(uses="actions/checkout@v4")),
    ("leaves its token", lambda w: w["jobs"]["check"]["steps"][0].pop("with")),
    ("may write", lambda w: w["jobs"]["check"]["permissions"].update(contents="write")),
    ("rights that they do not name", lambda w: w.pop("permissions")),
    ("text of others", lambda w: w["jobs"]["check"]["steps"].append({"run": "echo ${{ github.head_ref }}"})),
    ("needs a secret", lambda w: w["jobs"]["image"]["steps"][2]["with"].update(password="${{ secrets.TOKEN }}")),
    ("more than pushed tags", lambda w: w[True].update(pull_request_target={})),
    ("has no end", lambda w: w["jobs"]["build"].pop("timeout-minutes")),
]


@pytest.mark.parametrize(("problem", "spoil"), SPOILS)
def test_a_fault_of_a_workflow_is_found(problem: str, spoil: Callable[[Any], object], release: Any) -> None:
    spoiled = copy.deepcopy(release)
    spoil(spoiled)
    assert any(problem in each for each in problems(spoiled))


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    assert "https://keepachangelog.com/" in CHANGELOG and "https://semver.org/" in CHANGELOG
    versions = versions_in(CHANGELOG)
    assert versions[0] == ("Unreleased", "") and all(day for _, day in versions[1:])
    assert len(re.findall(r"^## ", CHANGELOG, re.MULTILINE)) == len(versions)
    assert set(re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE)) <= KINDS


def test_released_versions_are_in_order_and_end_with_the_one_of_the_code() -> None:
    released = [tuple(map(int, version.split("."))) for version, _ in versions_in(CHANGELOG)[1:]]
    assert released == sorted(released, reverse=True) and all(each <= tuple(map(int, VERSION.split("."))) for each in released)


RELEASED: Final = (
    "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-31\n\n### Added\n\n- A thing.\n\n## [1.2.2] - 2026-01-01\n\n- Old.\n"
)


def test_the_notes_of_a_release_are_its_section() -> None:
    assert notes_of("v1.2.3", "1.2.3", RELEASED) == "### Added\n\n- A thing.\n"


@pytest.mark.parametrize(
    ("tag", "version", "text", "why"),
    [
        ("v1.2.4", "1.2.3", RELEASED, "is not v1.2.3"),
        ("1.2.3", "1.2.3", RELEASED, "is not v1.2.3"),
        ("v1.2.4", "1.2.4", RELEASED, r"has no section ## \[1.2.4\]"),
        ("v1.2.3", "1.2.3", RELEASED.replace(" - 2026-01-31", ""), "has no section"),
        ("v1.2.3", "1.2.3", RELEASED.replace("### Added\n\n- A thing.\n", ""), "is empty"),
    ],
)
def test_a_tag_that_is_not_the_version_or_has_no_notes_is_refused(tag: str, version: str, text: str, why: str) -> None:
    with pytest.raises(NotReleasable, match=why):
        notes_of(tag, version, text)


def test_a_release_with_images_of_another_version_is_refused() -> None:
    refuse_other_tags("1.2.3", {"a": "images:\n  - {name: interlock, newTag: 1.2.3} # by digest\n"})
    for text in ("images:\n  - {name: interlock, newTag: 1.2.2}\n", "resources: []\n"):
        with pytest.raises(NotReleasable, match=r"newTag is not 1\.2\.3 in b"):
            refuse_other_tags("1.2.3", {"a": "newTag: 1.2.3", "b": text})


def test_the_guide_makes_a_release_the_one_that_the_next_is_an_upgrade_from() -> None:
    guide = (ROOT / "docs" / "releasing.md").read_text()
    named = re.findall(r"`((?:tests|gateway|examples|adapters)/[\w./]+\.?\w*)`", guide)
    assert {"tests/journeys/last_release", "gateway/storage/migrations/__init__.py"} <= set(named)
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_guide_names_the_workflow_and_its_files() -> None:
    guide = (ROOT / "docs" / "releasing.md").read_text()
    assert "../.github/workflows/release.yml" in guide and "gh attestation verify" in guide
    folder = ROOT / "examples" / "deploy" / "kubernetes"
    refuse_other_tags(VERSION, {name: (folder / name / "kustomization.yaml").read_text() for name in MANIFESTS})
