"""The tour of docs/events.md: its settings are those of the example, and its commands do what it says."""

import asyncio
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from tests.fakes.event_house import stored, triggers
from tests.fakes.house import open_house
from tests.fakes.waiting import until
from tests.house.source import ROOT

PAGE = ROOT / "docs" / "events.md"
SETTINGS = ROOT / "examples" / "events" / "interlock.yaml"
REFUSED = 1  # of the commands of the tour: the webhook without a name


def commands() -> list[list[str]]:
    found = re.search(r"<!-- tour -->\n```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return [shlex.split(line) for line in found[1].splitlines()]


async def run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    program = [sys.executable, *command[1:]] if command[0] == "python" else [sys.executable, "-m", "gateway", *command[1:]]
    process = await asyncio.create_subprocess_exec(
        *program, cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


def test_the_page_quotes_the_settings_of_the_example_word_by_word() -> None:
    quotes = re.findall(r"<!-- from (\S+) -->\n```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(quotes) == 2 and [path for path, lines in quotes if lines not in (ROOT / path).read_text()] == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_tour_of_events_runs(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = re.search(r"CRM_SECRET=(\S+)", PAGE.read_text())
    assert secret is not None
    monkeypatch.setenv("CRM_SECRET", secret[1])
    monkeypatch.chdir(ROOT)
    async with open_house(tmp_path / "home", database_url, **yaml.safe_load(SETTINGS.read_text())) as home:
        await home.gateway.workflows.folder.publish_waiting()
        await home.gateway.database.refresh_epochs()
        environment = {**os.environ, "INTERLOCK_URL": home.url, "INTERLOCK_TOKEN": home.token("admin")}
        first, *rest = commands()
        assert (await run(first, environment))[0] == 0

        async def is_told() -> bool:
            return [event["type"] for event in await stored(home)] == ["crm.contact.created", "interlock.run.ended.v1"]

        await until(is_told, every=0.05)
        outcomes = [await run(command, environment) for command in rest]
        assert [code for code, _ in outcomes] == [REFUSED, 0, 0, 0, 0, 0, 0], outcomes
        assert "event-schema" in outcomes[0][1] and "welcome: workflow welcome" in outcomes[1][1]
        assert "customer/42" not in outcomes[6][1] and (await triggers(home))["welcome"]["dead"] == 0
        (event, ended, *_) = await stored(home)
        assert (event["source"], event["subject"]) == ("urn:interlock:source:crm", "customer/42")
        assert ended["data"]["owner"] == "default|urn:interlock:service|front-desk"


async def test_the_sender_of_webhooks_says_that_it_needs_the_secret() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CRM_SECRET"}
    code, said = await run(["python", "examples/events/send_webhook.py", "crm.contact.created", "{}"], environment)
    assert code == 1 and "CRM_SECRET" in said and "Traceback" not in said
