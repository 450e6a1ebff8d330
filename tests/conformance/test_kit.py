"""A kit that is not there, or can't run, is said in one line."""

import sys
from pathlib import Path

import pytest

from tests.conformance.kit import V03, V1, Kit, KitMissing, Trial, carried_out, evaluated


@pytest.mark.parametrize("kit", [V1, V03])
def test_without_the_kit_it_is_said_where_to_put_it(kit: Kit, tmp_path: Path) -> None:
    with pytest.raises(KitMissing, match=f"branch {kit.branch} of a2aproject/a2a-tck there, or set {kit.variable}"):
        kit.find({kit.variable: str(tmp_path)})


def test_a_kit_is_found_where_the_environment_says(tmp_path: Path) -> None:
    (tmp_path / V1.tests).mkdir(parents=True)
    assert V1.find({V1.variable: str(tmp_path)}) == tmp_path


async def test_a_kit_that_does_not_load_is_said_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(KitMissing, match="No module named 'tck'"):
        await evaluated(Trial(Path(sys.executable), tmp_path, tmp_path, print), "import tck")


async def test_the_kits_own_tests_leave_a_report_behind(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it():\n    assert True\n")
    said: list[str] = []
    report = await carried_out(Trial(Path(sys.executable), tmp_path, tmp_path, said.append), "run", ["test_it.py"])
    assert 'name="test_it"' in report.read_text()
    assert said == ["  100 %"]


async def test_a_kit_without_a_report_is_said(tmp_path: Path) -> None:
    with pytest.raises(KitMissing, match="gave no report"):
        await carried_out(Trial(Path(sys.executable), tmp_path, tmp_path, print), "run", ["--no-such-flag"])
