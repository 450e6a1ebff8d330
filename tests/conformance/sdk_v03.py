"""The official SDK of A2A 0.3 beside the kit: what the kit does not try, which is how stock clients find an agent and trust its card."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from tests.bench.processes import ROOT, environment
from tests.conformance.kit import BUILD, KitMissing, Say
from tests.conformance.report import Ran

SDK = "a2a-sdk[http-server,signing]==0.3.26"
VENV = BUILD / "sdk-0.3-venv"
CLIENT = Path(__file__).parent / "sdk_v03_client.py"
LIMIT = 120.0  # seconds that all checks may take


async def checked(sut: str, say: Say) -> list[Ran]:
    """What the SDK says of the agent at `sut`, as tests. Raises KitMissing."""
    python = await asyncio.to_thread(prepare, say)
    process = await asyncio.create_subprocess_exec(str(python), str(CLIENT), sut, env=_plain(), cwd=ROOT, stdin=-3, stdout=-1, stderr=-1)
    try:
        async with asyncio.timeout(LIMIT):
            told, trouble = await process.communicate()
    except TimeoutError:
        raise KitMissing(f"the SDK of A2A 0.3 did not end within {LIMIT:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise KitMissing(f"the SDK of A2A 0.3 ended with {process.returncode}:\n{trouble.decode(errors='replace')[-2000:]}")
    return as_tests(json.loads(told))


def as_tests(problems: dict[str, str]) -> list[Ran]:
    """`problems`: of each check, empty where there is none. Raises KitMissing where nothing was checked."""
    if not problems:
        raise KitMissing("the SDK of A2A 0.3 checked nothing")
    return [Ran(f"sdk/{CLIENT.name}::{name}", "failed" if problem else "passed", problem) for name, problem in problems.items()]


def prepare(say: Say) -> Path:
    """The interpreter that has the SDK; made once. Raises KitMissing."""
    python, done = VENV / "bin" / "python", VENV / "installed"
    if not done.exists() or done.read_text() != SDK:
        say(f"installing {SDK} into {VENV.relative_to(ROOT)}")
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", SDK]
        for command in [install] if python.exists() else [[sys.executable, "-m", "venv", str(VENV)], install]:
            made = subprocess.run(command, capture_output=True, text=True)
            if made.returncode:
                raise KitMissing(f"{' '.join(command)} failed:\n{made.stderr[-2000:]}")
        done.write_text(SDK)
    return python


def _plain() -> dict[str, str]:
    """Without the folders of this repository, whose SDK is another one."""
    return {name: value for name, value in environment().items() if name != "PYTHONPATH"}
