"""The line that tells of a long call: after a while, on a terminal, and out of the way of questions."""

import asyncio
import io

import pytest

from gateway.cli.terminal.progress import ProgressDisplay, format_progress
from tests.fakes.waiting import until


class Screen(io.StringIO):
    def __init__(self, *, terminal: bool = True) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def looking(monkeypatch: pytest.MonkeyPatch, *, terminal: bool = True) -> Screen:
    """From here on; a fixture's would be replaced again before the test begins."""
    screen = Screen(terminal=terminal)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    return screen


async def test_a_long_call_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = looking(monkeypatch)
    with ProgressDisplay("calling shop…", delay=0) as waiting:
        await until(lambda: "calling shop…" in shown.getvalue())
        await waiting.on_progress(3, 10, "rows\x1b[2J")
    assert "calling shop… 3/10 rows\N{REPLACEMENT CHARACTER}[2J" in shown.getvalue()


async def test_a_question_has_the_screen_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = looking(monkeypatch)
    with ProgressDisplay("calling shop…", delay=0) as waiting:
        await until(lambda: "calling shop…" in shown.getvalue())
        with waiting.pause():
            before = shown.getvalue()
            await waiting.on_progress(1, None, None)
            await asyncio.sleep(0)
            assert shown.getvalue() == before
        await until(lambda: "calling shop… 1" in shown.getvalue())


async def test_a_short_call_says_nothing_nor_does_any_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = looking(monkeypatch)
    with ProgressDisplay("calling shop…"):
        await asyncio.sleep(0)
    assert shown.getvalue() == ""
    piped = looking(monkeypatch, terminal=False)
    with ProgressDisplay("calling shop…", delay=0) as waiting:
        await asyncio.sleep(0)
        await waiting.on_progress(1, 2, None)
    assert piped.getvalue() == ""


def test_a_share_is_told_where_the_whole_is_known() -> None:
    assert (format_progress(3, 10), format_progress(2.5, None)) == ("3/10", "2.5")
