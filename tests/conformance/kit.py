"""The A2A kits: where their folders are, the environment that they run in, one run of one."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import ROOT

BUILD = ROOT / "build"
VENV = BUILD / "tck-venv"
NEEDS = (
    "gherkin-official",
    "googleapis-common-protos",
    "grpcio",
    "httpx",
    "jinja2",
    "jsonschema",
    "packaging",
    "protobuf",
    "pyopenssl",
    "pytest",
    "pytest-asyncio",
    "pytest-html",
    "requests",
    "responses",
)
LIMIT = 900.0  # seconds that one run may take
PERCENT = re.compile(rb"\[ *(\d+)%\]")


Say = Callable[[str], None]


class KitMissing(Exception):
    """The kit can't be run; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Kit:
    """Where a kit comes from. `tests` is a folder that it surely has."""

    version: str  # of A2A
    branch: str
    variable: str  # of the environment, with its folder
    default: str  # below build/
    tests: str

    def find(self, environment: Mapping[str, str]) -> Path:
        """Its folder. Raises KitMissing."""
        folder = Path(environment.get(self.variable) or BUILD / self.default)
        if not (folder / self.tests).is_dir():
            raise KitMissing(
                f"no kit for A2A {self.version} in {folder}: check out the branch {self.branch} of a2aproject/a2a-tck there, "
                f"or set {self.variable} to the folder where it is"
            )
        return folder.resolve()


V1 = Kit("1.0", "1.0-dev", "A2A_TCK", "a2a-tck", "tests/compatibility")
V03 = Kit("0.3", "0.3.x", "A2A_TCK_03", "a2a-tck-0.3", "tests/mandatory")


@dataclass(frozen=True, slots=True)
class Trial:
    """What all runs of a kit share."""

    python: Path
    kit: Path
    folder: Path  # of reports and logs
    say: Say


def prepare(say: Say) -> Path:
    """The interpreter that has what the kits need; made once. Raises KitMissing."""
    python, done = VENV / "bin" / "python", VENV / "installed"
    if not done.exists() or done.read_text() != "\n".join(NEEDS):
        say(f"installing what the kits need into {VENV.relative_to(ROOT)}")
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *NEEDS]
        for command in [install] if python.exists() else [[sys.executable, "-m", "venv", str(VENV)], install]:
            made = subprocess.run(command, capture_output=True, text=True)
            if made.returncode:
                raise KitMissing(f"{' '.join(command)} failed:\n{made.stderr[-2000:]}")
        done.write_text("\n".join(NEEDS))
    return python


async def carried_out(trial: Trial, name: str, arguments: Sequence[str]) -> Path:
    """The report (JUnit XML) of the kit's own tests, run with these arguments. Raises KitMissing."""
    junit, log = trial.folder / f"{name}.xml", trial.folder / f"{name}.log"
    command = [str(trial.python), "-m", "pytest", *arguments, f"--junitxml={junit}", "-q", "-rs", "--tb=short", "-p", "no:cacheprovider"]
    process = await asyncio.create_subprocess_exec(*command, cwd=trial.kit, env=_environment(trial.kit), stdout=-1, stderr=-2, stdin=-3)
    try:
        await asyncio.wait_for(_followed(process, log, trial.say), LIMIT)
    except TimeoutError:
        raise KitMissing(f"the kit did not end within {LIMIT:.0f} s; its log: {log}") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if not junit.exists():
        raise KitMissing(f"the kit gave no report; its log: {log}")
    return junit


async def _followed(process: asyncio.subprocess.Process, log: Path, say: Say) -> None:
    assert process.stdout is not None
    with log.open("wb") as sink:
        async for line in process.stdout:
            sink.write(line)
            if found := PERCENT.search(line):
                say(f"  {found[1].decode()} %")
    await process.wait()


async def evaluated(trial: Trial, expression: str) -> str:
    """What a few lines of Python print inside the kit. Raises KitMissing."""
    process = await asyncio.create_subprocess_exec(
        str(trial.python), "-c", expression, cwd=trial.kit, env=_environment(trial.kit), stdout=-1, stderr=-1
    )
    said, complaint = await process.communicate()
    if process.returncode:
        raise KitMissing(f"the kit in {trial.kit} can't be loaded:\n{complaint.decode(errors='replace')[-2000:]}")
    return said.decode()


def _environment(kit: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(kit), "PYTHONDONTWRITEBYTECODE": "1", "PY_COLORS": "0"}
