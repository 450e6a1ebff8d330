"""The steps of a Dockerfile done by hand: each stage in a folder of its own, with the pip that its Python brings."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.house.image import Stage
from tests.house.source import ROOT

PLACES = re.compile(r"(?<![\w./-])/(?=(?:src|wheels|opt|data|credentials)\b)")
HERE = shutil.ignore_patterns("__pycache__", "*.pyc")


def base_python() -> str:
    """The Python that stands for the base image's: BASE_PYTHON, or the one of the tests."""
    return os.environ.get("BASE_PYTHON") or sys.executable


@dataclass
class Replay:
    """What each stage left, below `folder`."""

    folder: Path
    done: list[str] = field(default_factory=list)

    def run(self, stage: Stage) -> Path:
        """Does all steps of a stage. Raises CalledProcessError where one fails."""
        home = self.folder / stage.name
        home.mkdir()
        bare = self._bare(stage.name)
        environment = {"PATH": f"{bare}/bin:{os.environ['PATH']}", "HOME": str(home), **_index()}
        where = home
        for word, rest in stage.steps:
            if word == "WORKDIR":
                where = home / rest.lstrip("/")
                where.mkdir(parents=True, exist_ok=True)
            elif word == "COPY":
                self._copy(home, where, rest)
            elif word == "RUN":
                command = PLACES.sub(f"{home}/", rest if os.geteuid() == 0 else re.sub(r" -[og] \d+", "", rest))
                subprocess.run(["/bin/sh", "-e", "-c", command], cwd=where, env=environment, check=True, capture_output=True, text=True)
                self.done.append(f"{stage.name}: {rest[:80]}")
        return home

    def _bare(self, name: str) -> Path:
        """Python and its pip, as the base image has them."""
        bare = self.folder / f"{name}-base"
        subprocess.run([base_python(), "-m", "venv", str(bare)], check=True, capture_output=True)
        return bare

    def _copy(self, home: Path, where: Path, rest: str) -> None:
        """What comes from another stage stays where it was made, since environments know their own place."""
        if rest.startswith("--from="):
            origin, source, target = rest.removeprefix("--from=").split()
            place = home / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(self.folder / origin / source.lstrip("/"))
            return
        *sources, target = rest.split()
        for source in sources:
            place = home / target.lstrip("/") if target.startswith("/") else where / target
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=HERE)
            else:
                shutil.copy(ROOT / source, place)


def _index() -> dict[str, str]:
    """Where this machine's pip finds packages."""
    return {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HTTP", "http", "NO_PROXY", "no_proxy"))}
