"""The settings of the guide to shared state are accepted."""

import re
from pathlib import Path

import yaml

from gateway.server.settings import Settings
from tests.house.source import ROOT

GUIDE = (ROOT / "docs" / "state.md").read_text()
SETTINGS = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)


def test_the_settings_of_the_guide_are_accepted(tmp_path: Path) -> None:
    assert len(SETTINGS) == 2
    for text in SETTINGS:
        assert Settings(home=tmp_path, **yaml.safe_load(text)).state.prefixes
