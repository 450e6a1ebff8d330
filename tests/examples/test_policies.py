"""The example of a policy folder passes its own cases, as the command line runs them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app

FOLDER = Path(__file__).parents[2] / "examples" / "policies"


def test_the_example_passes_its_cases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(FOLDER)
    monkeypatch.setenv("INTERLOCK_HOME", str(tmp_path))
    result = CliRunner().invoke(app, ["policy", "test"])
    assert result.exit_code == 0, result.output
    assert result.output.count(" ok ") == (FOLDER / "shop.test.yaml").read_text().count("- name:") > 5
