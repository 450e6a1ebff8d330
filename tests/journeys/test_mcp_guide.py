"""The commands of the guide to MCP work as they stand there."""

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.fakes.house import open_house
from tests.house.source import ROOT

GUIDE = ROOT / "docs" / "mcp.md"
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the guide uses curl")
async def test_the_commands_of_the_guide_work(tmp_path: Path) -> None:
    script = f'set -e\ninterlock() {{ "{sys.executable}" -m gateway "$@"; }}\n' + "\n".join(SHELL.findall(GUIDE.read_text()))
    async with open_house(tmp_path / "home", f"sqlite:///{tmp_path / 'i.db'}") as home:
        server = await home.server("inventory", "check_stock")
        told = {"INTERLOCK_URL": home.url, "INTERLOCK_TOKEN": home.token("admin"), "PYTHONPATH": str(ROOT)}
        running = await asyncio.create_subprocess_exec(
            "bash", "-c", script, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, env={**os.environ, **told}
        )
        async with asyncio.timeout(300):
            printed, _ = await running.communicate()
    said = printed.decode()
    assert running.returncode == 0, said
    assert server.calls == [("check_stock", {"sku": "SKU-7"})] * 5
    assert said.count("SKU-7") >= 5
    assert "/mcp/virtual/front-office" in said and "search_tools" in said and "mcp-session-id" in said.lower()
