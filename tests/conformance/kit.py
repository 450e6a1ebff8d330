"""The A2A kit: where its folder is, the environment that it runs in, one run of it."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
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
    "protobuf",
    "pytest",
    "pytest-asyncio",
    "pytest-html",
)
LIMIT = 900.0  # seconds that one run may take
PERCENT = re.compile(rb"\[ *(\d+)%\]")
SECTIONS = (
    "import json; from tck.requirements.registry import ALL_REQUIREMENTS as all; print(json.dumps({one.id: one.section for one in all}))"
)


class KitMissing(Exception):
    """The kit can't be run; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What all runs share."""

    python: Path
    kit: Path
    folder: Path  # of reports and logs
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run left behind."""

    report: Path  # the kit's own, JSON
    junit: Path  # of its test runner, XML
    log: Path
    sections: str  # JSON: requirement id -> section of the specification


def find(environment: Mapping[str, str]) -> Path:
    """The folder of the kit for A2A 1.0. Raises KitMissing."""
    folder = Path(environment.get("A2A_TCK") or BUILD / "a2a-tck")
    if not (folder / "tests" / "compatibility").is_dir():
        raise KitMissing(
            f"no A2A kit in {folder}: check out the branch 1.0-dev of a2aproject/a2a-tck there, or set A2A_TCK to the folder where it is"
        )
    return folder.resolve()


def prepare(say: Callable[[str], None]) -> Path:
    """The interpreter that has what the kit needs; made once. Raises KitMissing."""
    python, done = VENV / "bin" / "python", VENV / "installed"
    if not done.exists() or done.read_text() != "\n".join(NEEDS):
        say(f"installing what the kit needs into {VENV.relative_to(ROOT)}")
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *NEEDS]
        for command in ([sys.executable, "-m", "venv", str(VENV)], install):
            made = subprocess.run(command, capture_output=True, text=True)
            if made.returncode:
                raise KitMissing(f"{' '.join(command)} failed:\n{made.stderr[-2000:]}")
        done.write_text("\n".join(NEEDS))
    return python


async def run(trial: Trial, sut: str, name: str, select: str = "") -> Outcome:
    """The whole kit, or the tests that `select` names (pytest -k), against the agent whose card is below `sut`. Raises KitMissing."""
    python, kit = trial.python, trial.kit
    report, junit, log = (trial.folder / f"{name}{ending}" for ending in (".json", ".xml", ".log"))
    outcome = Outcome(report, junit, log, await _sections(python, kit))
    command = [
        str(python),
        "-m",
        "pytest",
        "tests/compatibility/",
        f"--sut-host={sut}",
        "--webhook-host=127.0.0.1",
        "-q",
        "-rs",
        "--tb=short",
    ]
    command += [f"--compatibility-report={report}", f"--junitxml={junit}", "-p", "no:cacheprovider", "--color=no"]
    command += ["-k", select] if select else []
    process = await asyncio.create_subprocess_exec(*command, cwd=kit, env=_environment(kit), stdout=-1, stderr=-2, stdin=-3)
    try:
        await asyncio.wait_for(_followed(process, log, trial.say), LIMIT)
    except TimeoutError:
        raise KitMissing(f"the kit did not end within {LIMIT:.0f} s; its log: {log}") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if not (report.exists() and junit.exists()):
        raise KitMissing(f"the kit gave no report; its log: {log}")
    return outcome


async def _followed(process: asyncio.subprocess.Process, log: Path, say: Callable[[str], None]) -> None:
    assert process.stdout is not None
    with log.open("wb") as sink:
        async for line in process.stdout:
            sink.write(line)
            if found := PERCENT.search(line):
                say(f"  {found[1].decode()} %")
    await process.wait()


async def _sections(python: Path, kit: Path) -> str:
    process = await asyncio.create_subprocess_exec(str(python), "-c", SECTIONS, cwd=kit, env=_environment(kit), stdout=-1, stderr=-1)
    said, complaint = await process.communicate()
    if process.returncode:
        raise KitMissing(f"the kit in {kit} can't be loaded:\n{complaint.decode(errors='replace')[-2000:]}")
    return said.decode()


def _environment(kit: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(kit), "PYTHONDONTWRITEBYTECODE": "1"}
