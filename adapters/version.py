"""The version of Interlock, used by the packaging, the command line, the servers and the clients, and the commit of a build."""

import re
from pathlib import Path

VERSION = "0.1.0"
COMMIT_SHOWN = 12  # of its 40 digits


def find_commit(folder: Path | None = None) -> str:
    """Returns the commit that a release was built from, which its build wrote beside this file; empty for any other installation."""
    try:
        text = ((folder or Path(__file__).parent) / "commit.txt").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return text[:COMMIT_SHOWN] if re.fullmatch("[0-9a-f]{40}", text) else ""
