"""The example of a policy folder passes its own cases, as the command line runs them; so do the examples in the guides."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from policies.cedar.engine import DEFAULT_USER_PREFIX, load_rules
from policies.what_if.cases import read_cases

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "policies"


def test_the_example_passes_its_cases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(FOLDER)
    monkeypatch.setenv("INTERLOCK_HOME", str(tmp_path))
    result = CliRunner().invoke(app, ["policy", "test"])
    assert result.exit_code == 0, result.output
    assert result.output.count(" ok ") == (FOLDER / "shop.test.yaml").read_text().count("- name:") > 5


def test_the_policies_and_cases_of_the_guides_can_be_used(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "policies.md").read_text()
    cases = [block for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) if block.startswith("cases:")]
    assert [case.expect for block in cases for case in read_cases(block, DEFAULT_USER_PREFIX, lambda _person: ())] == ["deny"]
    cedar = re.findall(r"```cedar\n(.*?)```", (ROOT / "docs" / "permissions.md").read_text(), re.DOTALL)
    for number, block in enumerate(cedar):
        (tmp_path / f"guide{number}.cedar").write_text(block)
    assert cedar and load_rules({}, tmp_path).id_by_key
