"""The example of the guide to approvals does what the guide says, with its policy, its settings and its commands."""

import asyncio
import re
from pathlib import Path

import yaml

from tests.fakes.house import open_house
from tests.gateway.cli.conftest import CommandLine, Ran
from tests.house.source import ROOT

GUIDE = ROOT / "docs" / "approvals.md"


async def test_the_example_of_the_guide_works(tmp_path: Path) -> None:
    guide = GUIDE.read_text()
    policy, settings = re.search(r"```cedar\n(.*?)```", guide, re.DOTALL), re.search(r"```yaml\n(.*?)```", guide, re.DOTALL)
    call = re.search(r"`interlock (call) (\S+) '([^']+)'`", guide)
    assert policy and settings and call and "`interlock approval approve ID`" in guide
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "refunds.cedar").write_text(policy[1])
    given = {**yaml.safe_load(settings[1]), "policies": str(tmp_path / "policies")}
    async with open_house(tmp_path / "home", f"sqlite:///{tmp_path / 'i.db'}", **given) as home:
        crm = await home.server("crm", "refund")

        async def run(user: str, *command: str) -> Ran:
            told: dict[str, str | None] = {
                "INTERLOCK_URL": home.url,
                "INTERLOCK_TOKEN": home.token(user),
                "COLUMNS": "200",
                "NO_COLOR": "1",
            }
            return await asyncio.to_thread(CommandLine(told), *command)

        asked = await run("alice", *call.groups())
        found = re.search(r"ap_\w+", asked.out + asked.err)
        assert found is not None and asked.code != 0, asked
        for chief in ("carol", "dave"):
            assert crm.calls == []
            assert (await run(chief, "approval", "approve", found[0])).code == 0
        done = await run("alice", *call.groups())
        assert done.code == 0 and "o-7" in done.out, done
        again = await run("alice", *call.groups())
        assert again.code != 0 and found[0] not in again.out + again.err
    assert crm.calls == [("refund", {"order": "o-7", "amount": 600})]
