"""Progress of a call that takes longer than a second: a spinner with the reported progress."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from gateway.cli import output as screen

if TYPE_CHECKING:
    from rich.status import Status

DELAY_SECONDS = 1.0  # before the spinner appears


class ProgressDisplay:
    """A spinner, to be entered inside a running event loop. Shown on a terminal only."""

    def __init__(self, label: str, delay: float = DELAY_SECONDS) -> None:
        self._label = self._text = label
        self._delay = delay
        self._status: Status | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._timer = asyncio.get_running_loop().call_later(self._delay, self._show)
        return self

    def __exit__(self, *_: object) -> None:
        self._hide()

    async def on_progress(self, progress: float, total: float | None, message: str | None) -> None:
        """Shows a progress notification."""
        self._text = " ".join((self._label, format_progress(progress, total), message or "")).strip()
        if self._status is not None:
            self._status.update(screen.printable(self._text))

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Hides the spinner while the person is asked something."""
        self._hide()
        try:
            yield
        finally:
            self.__enter__()

    def _show(self) -> None:
        self._status = screen.console(stderr=True).status(screen.printable(self._text))
        self._status.start()

    def _hide(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._status is not None:
            self._status.stop()
        self._timer = self._status = None


def format_progress(progress: float, total: float | None) -> str:
    """Returns `3/10`, or `3` where the total is unknown."""
    return f"{progress:g}" if total is None else f"{progress:g}/{total:g}"
