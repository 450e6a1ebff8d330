"""`make demo` ends by itself with DEMO_EXIT=1, and well only when every step went as it should."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEY_LINES = (
    "all three are active",
    "Order confirmed: 2 x SKU-7 (standing desk) for 698.00 EUR, reservation R-1001.",
    "every hop was allowed",
    "the stock change was refused at the last hop",
    "tool:inventory.reserve_stock (user)",
    "Sell 4 x standing desk for 1396 EUR?",
    "it went on by itself, and the goods are reserved as R-1002",
    "the flipped byte was found",
    "Every step went as it should",
    "/console/sign-in?link=",
    "/console/agents/support/try",
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> "subprocess.CompletedProcess[str]":
    """The whole demo, once, in a terminal of 80 columns without colours."""
    scratch = str(tmp_path_factory.mktemp("demo"))
    environment = {**os.environ, "DEMO_EXIT": "1", "NO_COLOR": "1", "COLUMNS": "80", "TMPDIR": scratch, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-m", "examples.demo"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_ctrl_c_ends_the_demo_and_all_that_it_started(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_COLOR": "1", "TMPDIR": str(tmp_path), "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(
        [sys.executable, "-m", "examples.demo"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, start_new_session=True
    ) as demo:
        assert demo.stdout is not None
        shown = (line.decode() for line in demo.stdout)
        assert any("the gateway on" in line for line in shown)  # by now all four are under way
        demo.send_signal(signal.SIGINT)
        rest = list(shown)
        assert demo.wait(30) == 130
    assert any("Ending all programs" in line for line in rest)
    assert list(tmp_path.iterdir()) == []


def test_every_step_of_the_demo_goes_as_it_should(told: "subprocess.CompletedProcess[str]") -> None:
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("line", KEY_LINES)
def test_the_demo_shows(told: "subprocess.CompletedProcess[str]", line: str) -> None:
    assert line in " ".join(told.stdout.split())


def test_without_colours_the_demo_prints_no_escape_codes(told: "subprocess.CompletedProcess[str]") -> None:
    assert "\x1b" not in told.stdout


def test_the_demo_fits_a_narrow_terminal(told: "subprocess.CompletedProcess[str]") -> None:
    too_wide = [line for line in told.stdout.splitlines() if len(line) > 80 and "/console/sign-in?link=" not in line]  # a link stays whole
    assert too_wide == []


def test_the_demo_leaves_nothing_behind(told: "subprocess.CompletedProcess[str]", tmp_path_factory: pytest.TempPathFactory) -> None:
    assert list(tmp_path_factory.getbasetemp().glob("demo*/interlock-demo-*")) == []
