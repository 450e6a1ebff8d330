"""The commands of the guide to A2A work as they stand there."""

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.fakes.house import CallbackAgent, open_house

GUIDE = Path(__file__).parents[2] / "docs" / "a2a.md"
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the guide uses curl")
async def test_the_commands_of_the_guide_work(tmp_path: Path) -> None:
    script = "set -e\n" + "\n".join(block.replace("curl ", "echo; curl ") for block in SHELL.findall(GUIDE.read_text()))
    async with open_house(tmp_path / "home", f"sqlite:///{tmp_path / 'i.db'}") as home:
        await home.agent(CallbackAgent("sales"))
        environment = {**os.environ, "INTERLOCK_URL": home.url, "INTERLOCK_TOKEN": home.token("alice")}
        running = await asyncio.create_subprocess_exec("bash", "-c", script, stdout=asyncio.subprocess.PIPE, env=environment)
        async with asyncio.timeout(60):
            printed, _ = await running.communicate()
    answers = printed.decode().split("\n\n")
    assert running.returncode == 0, printed
    assert printed.decode().count("sales got: 1 of SKU-7") >= 5 and "TASK_STATE_COMPLETED" in answers[-2] + answers[-1]
