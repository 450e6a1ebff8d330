"""Runs a gateway and records what holds its event loop: `python -m tests.large.lag serve …` writes blocks.jsonl to the working directory.

A line for each block: its milliseconds, what collections of garbage took of them, and the stacks that were seen, with their milliseconds.
"""

import asyncio
import gc
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

from gateway.cli.main import main
from gateway.server.sockets.accepting import BatchAcceptingLoop

BLOCKED_SECONDS: Final = 0.0025  # an iteration of the loop that takes longer is recorded
CHECK_SECONDS: Final = 0.002
SAMPLE_SECONDS: Final = 0.001
FRAMES_MAX: Final = 14
BLOCKS: Final = Path("blocks.jsonl")


class LoopWatch:
    """A thread that asks the loop to answer again and again, and looks at its stack while it does not."""

    def __init__(self, out: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._out = out
        self._loop = loop
        self._watched = threading.get_ident()
        self._collected = 0.0  # seconds in collections so far
        self._collection_began = 0.0
        gc.callbacks.append(self._note_collection)
        threading.Thread(target=self._watch, name="loop-watch", daemon=True).start()

    def _note_collection(self, phase: str, _info: dict[str, Any]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._collection_began = now
        else:
            self._collected += now - self._collection_began

    def _watch(self) -> None:
        with self._out.open("a", buffering=1) as sink:
            while not self._loop.is_closed():
                time.sleep(CHECK_SECONDS)
                answered, began, collected = threading.Event(), time.perf_counter(), self._collected
                try:
                    self._loop.call_soon_threadsafe(answered.set)
                except RuntimeError:  # the loop has been closed
                    return
                seen = self._sample_until(answered)
                seconds = time.perf_counter() - began
                if seconds > BLOCKED_SECONDS:
                    line = {"at": time.time(), "ms": seconds * 1e3, "gc_ms": (self._collected - collected) * 1e3, "stacks": seen}
                    sink.write(json.dumps(line) + "\n")

    def _sample_until(self, answered: threading.Event) -> dict[str, float]:
        stacks, since = Counter[str](), time.perf_counter()
        while not answered.wait(SAMPLE_SECONDS):
            now = time.perf_counter()
            stacks[_describe_stack(sys._current_frames().get(self._watched))] += (now - since) * 1e3  # type: ignore[assignment]  # milliseconds
            since = now
        return dict(stacks)


def _describe_stack(frame: FrameType | None) -> str:
    calls: list[str] = []
    while frame is not None and len(calls) < FRAMES_MAX and not frame.f_code.co_filename.endswith("asyncio/runners.py"):
        file = "/".join(Path(frame.f_code.co_filename).parts[-2:])
        calls.append(f"{file}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(calls)


def _watch_loops(run_forever: Callable[[Any], None]) -> Callable[[Any], None]:
    def run_watched(loop: Any) -> None:
        LoopWatch(BLOCKS.absolute(), loop)
        run_forever(loop)

    return run_watched


if __name__ == "__main__":
    sys.setswitchinterval(0.0005)  # the thread gets its turn while a callback runs
    BatchAcceptingLoop.run_forever = _watch_loops(BatchAcceptingLoop.run_forever)  # type: ignore[method-assign,assignment]  # watched in this process
    main()
