"""The commands of the guide to costs work as they stand there."""

import asyncio
import os
import re
import sys
from pathlib import Path

import yaml

from tests.fakes.house import CallbackAgent, open_house
from tests.house.source import ROOT

GUIDE = (ROOT / "docs" / "costs.md").read_text(encoding="utf-8")
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
YAML = re.compile(r"```yaml\n(.*?)```", re.DOTALL)


async def test_the_commands_of_the_guide_to_costs_work(tmp_path: Path) -> None:
    script = f'set -e\ninterlock() {{ "{sys.executable}" -m gateway "$@"; }}\n' + "\n".join(SHELL.findall(GUIDE))
    (settings,) = map(yaml.safe_load, YAML.findall(GUIDE))
    async with open_house(tmp_path / "home", f"sqlite:///{tmp_path / 'i.db'}", **settings) as home:
        agent = await home.agent(CallbackAgent("sales"))
        told = {"INTERLOCK_URL": home.url, "INTERLOCK_TOKEN": home.token("admin"), "PYTHONPATH": str(ROOT)}
        pipes = {"stdin": asyncio.subprocess.DEVNULL, "stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.STDOUT}
        running = await asyncio.create_subprocess_exec("bash", "-c", script, cwd=tmp_path, env={**os.environ, **told}, **pipes)
        async with asyncio.timeout(300):
            printed, _ = await running.communicate()
    said = printed.decode()
    assert running.returncode == 0, said
    assert len(agent.requests) == 2
    assert "0.01 of 0.05 USD are left, and the call reserves 0.02" in said and "the budget has no room for a third call" in said
    assert "total  0.04 USD" in said and re.search(r"cost +0\.02 USD", said)
    assert (tmp_path / "costs.csv").read_text().splitlines()[0].startswith("day,amount,currency,unpriced,quarantined,charged")
