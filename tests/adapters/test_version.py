"""The commit that an installed gateway or a checkout was built from."""

import subprocess
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from adapters.version import VERSION, describe_version, find_commit, read_checkout
from tests.house.source import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def build_checkout(root: Path, head: str, files: dict[str, str]) -> Path:
    for name, content in {"HEAD": head, **files}.items():
        path = root / ".git" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("head", "files"),
    [
        (COMMIT, {}),
        ("ref: refs/heads/main\n", {"refs/heads/main": f"{COMMIT}\n"}),
        ("ref: refs/heads/main\n", {"packed-refs": f"# pack-refs with: peeled\n{COMMIT} refs/heads/main\n"}),
    ],
)
def test_a_checkout_is_at_the_commit_of_its_head(tmp_path: Path, head: str, files: dict[str, str]) -> None:
    assert read_checkout(build_checkout(tmp_path, head, files)) == COMMIT


def test_a_worktree_is_at_the_commit_of_its_own_head(tmp_path: Path) -> None:
    build_checkout(tmp_path / "main", "ref: refs/heads/main", {"refs/heads/side": COMMIT, "refs/heads/main": "f" * 40})
    private = tmp_path / "main" / ".git" / "worktrees" / "side"
    private.mkdir(parents=True)
    (private / "HEAD").write_text("ref: refs/heads/side\n")
    (private / "commondir").write_text("../..\n")
    (tmp_path / "side").mkdir()
    (tmp_path / "side" / ".git").write_text(f"gitdir: {private}\n")
    assert read_checkout(tmp_path / "side") == COMMIT


@pytest.mark.parametrize("head", ["", "ref: refs/heads/none", "not a commit", "ref: /etc/passwd"])
def test_what_names_no_commit_is_no_commit(tmp_path: Path, head: str) -> None:
    assert read_checkout(build_checkout(tmp_path, head, {})) == ""
    assert read_checkout(tmp_path / "elsewhere") == ""


def test_the_version_of_this_checkout_is_the_one_that_git_tells() -> None:
    asked = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    if asked.returncode:
        pytest.skip("this is no checkout of Git")
    assert find_commit() == asked.stdout.strip()
    assert describe_version() == f"{VERSION}+{asked.stdout[:12]}"


def test_a_wheel_has_the_commit_that_its_builder_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOCK_COMMIT", COMMIT)
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    assert zipfile.ZipFile(wheel).read("adapters/commit.txt").decode() == f"{COMMIT}\n"
