"""The tour of the guide to memory works as written, with its roles and its commands."""

import asyncio
import re
import shlex
from pathlib import Path

import yaml

from tests.fakes.house import CallbackAgent, House, open_house
from tests.gateway.cli.conftest import CommandLine, Ran
from tests.house.source import ROOT

GUIDE = ROOT / "docs" / "memory.md"
AS_OPERATOR = "# as an operator"
FACT = re.compile(r"\bf_\w+")


def commands(guide: str) -> list[str]:
    lines = [line for block in re.findall(r"```console\n(.*?)```", guide, re.DOTALL) for line in block.splitlines()]
    assert len(lines) > 10 and all(line.startswith("$ interlock ") for line in lines)
    return [line.removeprefix("$ interlock ") for line in lines]


def remembering(home: House) -> CallbackAgent:
    """An agent that remembers a fact, whatever it is sent."""

    async def act(token: str, _text: str) -> str:
        own = await home.exchanged("sales", token, "/mcp/memory", "*")
        answer = await home.call(own, "/mcp/memory", "put", {"text": "Lives in Bern"})
        return str(answer.json()["result"]["isError"])

    return CallbackAgent("sales", act)


async def test_the_tour_of_the_guide_works_as_written(tmp_path: Path) -> None:
    guide = GUIDE.read_text()
    settings = re.search(r"```yaml\n(.*?)```", guide, re.DOTALL)
    assert settings
    given = {**yaml.safe_load(settings[1]), "users": {}}
    async with open_house(tmp_path / "home", f"sqlite:///{tmp_path / 'i.db'}", **given) as home:
        await home.agent(remembering(home))

        async def run(line: str) -> Ran:
            user = "admin" if AS_OPERATOR in line else "alice"
            told: dict[str, str | None] = {
                "INTERLOCK_URL": home.url,
                "INTERLOCK_TOKEN": home.token(user),
                "COLUMNS": "200",
                "NO_COLOR": "1",
            }
            return await asyncio.to_thread(CommandLine(told), *shlex.split(line, comments=True))

        printed = dict[str, str]()
        for line in commands(guide):
            fact = FACT.findall(printed.get("memory list", ""))
            ran = await run(line.replace("FACT", fact[0] if fact else "FACT"))
            assert ran.code == 0, (line, ran)
            printed[line] = ran.out
    assert "Mondays" in printed["memory search when are deliveries preferred"]
    assert "accounting@example.com" in printed['call memory_search \'{"query": "invoices"}\'']
    assert "sales" in printed["memory list"] and "Lives in Bern" in printed["memory show FACT"]
    assert "Lives in Basel" in printed["memory search basel"] and '"history"' in printed["memory export"]
    assert "3 facts" in printed["memory forget --everything"]
