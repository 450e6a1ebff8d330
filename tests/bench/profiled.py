"""`python -m tests.bench.profiled REPORT serve …`: the gateway, with a look at every thread's stack each 2 ms of CPU time."""

import runpy
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

INTERVAL = 0.002  # seconds of CPU
BEGIN = signal.SIGUSR2  # from this signal on, so that the start is not in the report
_ROWS = 45


class Samples:
    """CPU seconds by thread, by running function (`own`) and by function on the stack (`within`)."""

    def __init__(self) -> None:
        self.threads: dict[str, float] = defaultdict(float)
        self.own: dict[str, float] = defaultdict(float)
        self.within: dict[str, float] = defaultdict(float)
        self._clocks: dict[int, float] = {}

    def look(self) -> None:
        """Puts what each thread used since the last look down to where it is now."""
        frames, names = sys._current_frames(), {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in frames.items():
            clock = time.clock_gettime(time.pthread_getcpuclockid(ident))
            used = clock - self._clocks.get(ident, clock)
            self._clocks[ident] = clock
            if used > 0:
                self.take(frame, used, names.get(ident, "unnamed"))

    def take(self, frame: FrameType | None, seconds: float, thread: str) -> None:
        self.threads[thread] += seconds
        stack = []
        while frame is not None:
            if frame.f_code.co_filename != __file__:
                stack.append(f"[{thread}] {_name(frame)}")
            frame = frame.f_back
        if stack:
            self.own[stack[0]] += seconds
            for name in set(stack):
                self.within[name] += seconds

    def report(self) -> str:
        """Shares of all CPU time. What is on nearly every stack is left out: it says nothing."""
        total = sum(self.threads.values()) or 1.0
        within = {name: used for name, used in self.within.items() if used < 0.9 * self.threads[name[1:].partition("]")[0]]}
        lines = [f"{total:.2f} s of CPU"]
        for title, seconds in (("by thread", self.threads), ("own time", self.own), ("with what it calls", within)):
            lines += ["", title, *(f"{used / total:6.1%}  {name}" for name, used in _most(seconds))]
        return "\n".join(lines) + "\n"


def _most(seconds: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(seconds.items(), key=lambda item: -item[1])[:_ROWS]


def _name(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename)
    return f"{'/'.join(path.parts[-2:])}:{frame.f_code.co_firstlineno} {frame.f_code.co_qualname}"


def main() -> None:
    report = Path(sys.argv[1])
    sys.argv = ["interlock", *sys.argv[2:]]
    samples = Samples()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it once more after its own shutdown
    signal.signal(signal.SIGPROF, lambda *_: samples.look())
    signal.signal(BEGIN, lambda *_: signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL))
    try:
        runpy.run_module("gateway", run_name="__main__", alter_sys=False)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        report.write_text(samples.report())


if __name__ == "__main__":
    main()
