"""The tour of the guide to shared state does what the guide says, with its settings and its commands."""

import asyncio
import re
import shlex
from pathlib import Path

import yaml

from tests.fakes.house import House, open_house
from tests.gateway.cli.conftest import CommandLine, Ran
from tests.house.source import ROOT

GUIDE = (ROOT / "docs" / "state.md").read_text()
SETTINGS = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
STEPS = re.findall(r"```sh (\w+)\n(.*?)```", GUIDE, re.DOTALL)


async def run(home: House, user: str, line: str) -> Ran:
    environment: dict[str, str | None] = {
        "INTERLOCK_URL": home.url,
        "INTERLOCK_TOKEN": home.token(user),
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }
    return await asyncio.to_thread(CommandLine(environment), *shlex.split(line, comments=True)[1:])


async def test_the_tour_of_the_guide_works(tmp_path: Path) -> None:
    assert len(STEPS) == 3 and sum(commands.count("interlock ") for _, commands in STEPS) >= 10
    shown = ""
    async with open_house(tmp_path / "home", f"sqlite:///{tmp_path / 'i.db'}", **yaml.safe_load(SETTINGS[0])) as home:
        for user, commands in STEPS:
            for line in commands.strip().splitlines():
                ran = await run(home, user, line)
                assert ran.code == (3 if line.endswith("# refused") else 0), (line, ran)
                shown += ran.out
        held = re.search(r"hv_\w+", shown)
        assert held is not None and (await run(home, "stu", f"interlock state accept {held[0]}")).code == 0
        tier = (await run(home, "bob", "interlock state get customer/42/tier --json")).json
    assert (tier["value"], tier["version"]) == ("platinum", 1)
    assert "escalated" in shown and "held back" in shown


def test_the_other_settings_of_the_guide_are_accepted(tmp_path: Path) -> None:
    from gateway.server.settings import Settings

    assert len(SETTINGS) == 2
    for text in SETTINGS:
        assert Settings(home=tmp_path, **yaml.safe_load(text)).state.prefixes
