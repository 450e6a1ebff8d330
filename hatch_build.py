"""Writes the commit of the source into the wheel, so that an installed gateway knows it (adapters/version.py)."""

import os
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling is a tool of the build
    """Adds adapters/commit.txt to a wheel. INTERLOCK_COMMIT names the commit where there is no Git, as in a container's build."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        commit = os.environ.get("INTERLOCK_COMMIT") or self._ask_git()
        if version == "editable" or not commit:
            return
        path = Path(self.directory) / "commit.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{commit}\n")
        build_data["force_include"][str(path)] = "adapters/commit.txt"

    def _ask_git(self) -> str:
        try:
            asked = subprocess.run(["git", "-C", self.root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)  # noqa: S603, S607 (a tool of the build)
        except (OSError, subprocess.CalledProcessError):
            return ""
        return asked.stdout.strip()
