"""The version of Interlock, used by the packaging, the command line, the servers and the clients; and the commit it was built from."""

import re
from functools import cache
from pathlib import Path
from typing import Final

VERSION = "0.1.0"
COMMIT_FILE: Final = "commit.txt"  # beside this module, in a wheel: hatch_build.py writes it
_COMMIT: Final = re.compile(r"[0-9a-f]{40,64}")


@cache
def find_commit() -> str:
    """Returns the commit that this code was built from, or that the checkout is at; an empty text where neither is known."""
    here = Path(__file__).resolve().parent
    try:
        return _checked((here / COMMIT_FILE).read_text())
    except (OSError, UnicodeDecodeError):
        return read_checkout(here.parent)


def read_checkout(root: Path) -> str:
    """Returns the commit that the Git checkout or worktree at `root` is at, or an empty text. Runs no program."""
    try:
        folder = root / ".git"
        if folder.is_file():  # a worktree: "gitdir: PATH"
            folder = (root / folder.read_text().removeprefix("gitdir:").strip()).resolve()
        head = (folder / "HEAD").read_text().strip()
        if not head.startswith("ref:"):
            return _checked(head)
        return _read_reference(folder, head.removeprefix("ref:").strip())
    except (OSError, UnicodeDecodeError):
        return ""


def describe_version() -> str:
    """Returns the version with the commit as build metadata (Semantic Versioning 2.0.0, item 10): 0.1.0+1a2b3c4d5e6f."""
    commit = find_commit()
    return f"{VERSION}+{commit[:12]}" if commit else VERSION


def _read_reference(folder: Path, name: str) -> str:
    shared = folder / "commondir"
    common = (folder / shared.read_text().strip()).resolve() if shared.is_file() else folder
    for place in (folder, common):
        if (place / name).is_file():
            return _checked((place / name).read_text())
    packed = (line.split(" ") for line in (common / "packed-refs").read_text().splitlines() if line.endswith(f" {name}"))
    return next((_checked(parts[0]) for parts in packed), "")


def _checked(text: str) -> str:
    found = _COMMIT.fullmatch(text.strip())
    return found[0] if found else ""
