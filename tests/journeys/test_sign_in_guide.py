"""The tour of the guide to sign-in does what the guide says, and its settings are accepted."""

import asyncio
import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.cli.people import sign_in
from gateway.server.settings import Settings
from tests.fakes.house import open_house
from tests.gateway.cli.people.test_sign_in import approve
from tests.house.source import ROOT

GUIDE = (ROOT / "docs" / "sign-in.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)[0].split("\n")
SETTINGS = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)


async def test_the_tour_of_the_guide_to_sign_in_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    async with open_house(tmp_path / "home", f"sqlite:///{tmp_path / 'i.db'}") as home:
        await home.server("inventory", "check")
        monkeypatch.setenv("INTERLOCK_URL", home.url)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        monkeypatch.delenv("INTERLOCK_TOKEN", raising=False)
        monkeypatch.setattr(sign_in.screen, "print_text", lambda text: shown.append(str(text)))
        monkeypatch.setattr(sign_in.time, "sleep", lambda _: approve(home.url, shown[0].split()[-1], "admin"))
        outputs = ""
        for line in filter(None, COMMANDS):
            ran = await asyncio.to_thread(CliRunner().invoke, app, shlex.split(line)[1:])
            assert ran.exit_code == 0, (line, ran.output)
            outputs += ran.output
    assert len([line for line in COMMANDS if line]) == 4
    assert "inventory_check" in outputs and "admin" in outputs and shown[-1] == f"signed out of {home.url}"


def test_the_settings_of_the_guide_to_sign_in_are_accepted(tmp_path: Path) -> None:
    (text,) = SETTINGS
    settings = Settings(home=tmp_path, **yaml.safe_load(text))
    assert settings.has_sign_in and not settings.has_development_sign_in
    assert settings.sign_in.providers["corp"].issuer == settings.identity.issuers[0].issuer
