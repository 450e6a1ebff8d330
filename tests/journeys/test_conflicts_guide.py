"""The tour of the guide to conflicts does what the guide says, with its settings, its rules, its cases and its commands."""

import asyncio
import re
import shlex
from pathlib import Path

import yaml

from policies.cedar.engine import DEFAULT_USER_PREFIX, PolicyEngine
from policies.what_if.cases import read_cases
from policies.what_if.rehearsal import build_authority, rehearse
from registry.cards.effects import parse_effects
from tests.fakes.house import CallbackAgent, open_house
from tests.gateway.behaviour.state.test_conflict_rules import declare, mailing_agent, said
from tests.gateway.cli.conftest import CommandLine, Ran
from tests.house.source import ROOT

GUIDE = (ROOT / "docs" / "conflicts.md").read_text()
ROLES = {"operator": ["*"], "member": ["agent:*", "tool:*"]}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_the_cases_of_the_guide_hold_for_its_rules(tmp_path: Path) -> None:
    (tmp_path / "conflicts.cedar").write_text(blocks("cedar")[0])
    cases = read_cases(blocks("yaml")[1], DEFAULT_USER_PREFIX, lambda _person: ())
    results = rehearse(build_authority(PolicyEngine(ROLES, tmp_path), ROLES), cases)
    assert len(results) == 2 and [problem for result in results for problem in result.problems] == []


async def test_the_tour_of_the_guide_works(tmp_path: Path) -> None:
    commands = re.findall(r"^\d\. `interlock ([^`]+)`", GUIDE, re.MULTILINE)
    effects = yaml.safe_load(blocks("yaml")[0])["servers"][0]["effects"]
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "conflicts.cedar").write_text(blocks("cedar")[0])
    given: dict[str, object] = {"roles": ROLES, "users": {}, "policies": str(tmp_path / "policies")}
    async with open_house(tmp_path / "home", f"sqlite:///{tmp_path / 'i.db'}", **given) as home:
        mails = await home.server("mail", "send")
        assert parse_effects(effects)
        await declare(home, "mail", effects)

        async def run(user: str, command: str) -> Ran:
            told: dict[str, str | None] = {
                "INTERLOCK_URL": home.url,
                "INTERLOCK_TOKEN": home.token(user),
                "COLUMNS": "250",
                "NO_COLOR": "1",
            }
            return await asyncio.to_thread(CommandLine(told), *shlex.split(command))

        assert isinstance(await mailing_agent(home, "support"), CallbackAgent) and await mailing_agent(home, "sales")
        assert said(await home.send(home.token("alice"), "support", "your ticket is resolved")) == "sent"
        assert "sales-waits-after-support" in said(await home.send(home.token("alice"), "sales", "an offer"))
        sent, claimed, shown, listed = [await run("admin", command) for command in commands]
        refused = await run("bob", commands[0])
        assert (sent.code, claimed.code, len(mails.calls)) == (0, 0, 2), (sent, claimed)
        assert all(text in shown.out for text in ("outbound-email", "a complaint", "support for alice", "policy-forbids")), shown
        assert listed.code == 0 and refused.code == 3 and "customer:42 is claimed since" in refused.err, refused
        assert "customer:42" in (await run("admin", f"{commands[3]} --everybody")).out
