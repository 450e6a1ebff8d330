"""Files name no host of a package registry and no place of one machine; locks are exact and complete."""

import re
import tomllib

import pytest

from tests.house import papers
from tests.house.source import ROOT, product, texts

LOCKS = ("requirements.lock", "requirements-dev.lock")
BUILD = "requirements-build.lock"
PLACES = (ROOT / "examples", ROOT / "tests")
VENDORS = tuple(sorted(path.relative_to(ROOT).as_posix() for place in PLACES for path in place.rglob("*.lock")))


def test_no_file_names_a_registry_host_or_a_place_of_one_machine() -> None:
    assert [problem for path, text in texts() for problem in papers.strangers(path, text)] == []


@pytest.mark.parametrize("lock", (*LOCKS, *VENDORS, BUILD))
def test_a_lock_has_hashes_for_every_pin_and_no_address(lock: str) -> None:
    assert papers.loose_pins(lock, (ROOT / lock).read_text()) == []


def test_every_server_and_sdk_of_a_vendor_has_its_lock() -> None:
    wanted = sorted(
        path.with_suffix(".lock").relative_to(ROOT).as_posix() for path in ROOT.glob("*/**/requirements.in") if "build" not in path.parts
    )
    assert list(VENDORS) == wanted and len(VENDORS) >= 9


def test_both_locks_agree_and_hold_every_dependency() -> None:
    small, large = (papers.pinned((ROOT / lock).read_text()) for lock in LOCKS)
    assert len(small) > 30
    assert large | small == large
    build = papers.pinned((ROOT / BUILD).read_text())
    assert "hatchling" in build and large | build == large
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for lock, wanted in ((small, project["dependencies"]), (large, project["optional-dependencies"]["dev"])):
        names = {re.split(r"[\[><=]", one)[0] for one in wanted}
        assert names <= {name.partition("[")[0] for name in lock}


@pytest.mark.parametrize("line", ["see https://py" + "pi.org/x", "cd /wo" + "rk/main", "COPY x /ro" + "ot/.config", "`/ho" + "me/ann/x`"])
def test_a_stranger_is_found(line: str) -> None:
    assert len(papers.strangers("x.md", f"a\n{line}\n")) == 1


@pytest.mark.parametrize("line", ["https://example.com/wo" + "rk/x", "/data/keys", "a/wo" + "rk/b", "{url}/ro" + "ot/x"])
def test_an_ordinary_path_is_fine(line: str) -> None:
    assert papers.strangers("x.md", line) == []


GOOD = "aio==1.2 ; python_full_version < '3.13' \\\n    --hash=sha256:" + "0" * 64 + "\n    # via x\n"


@pytest.mark.parametrize(
    "lock", ["aio==1.2\n", "aio>=1.2 \\\n    --hash=sha256:" + "0" * 64 + "\n", "--index-url https://x\n", "aio==1 \\\n    # via\n"]
)
def test_a_loose_pin_is_found(lock: str) -> None:
    assert papers.loose_pins("x.lock", GOOD) == []
    assert papers.loose_pins("x.lock", GOOD + lock)


def test_each_kind_of_audit_record_is_in_the_guide_and_no_other() -> None:
    places = ("gateway/", "policies/", "registry/")
    made = {kind for source in product() if source.path.startswith(places) for kind in re.findall(r'"kind": "([a-z]+)"', source.text)}
    told = set(re.findall(r"`([a-z]+)`", "".join(re.findall(r"(?m)^\| (`[^|]+) \|", (ROOT / "docs" / "audit.md").read_text()))))
    others = {"when", "state", "begin", "gap", "deleted"}  # a part of a rule, and what streams of runs and values have
    letters = {"notification", "event", "trigger"}  # dead letters
    assert made - others - letters == told
