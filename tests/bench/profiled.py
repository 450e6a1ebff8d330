"""`python -m tests.bench.profiled REPORT serve …`: the gateway with a sample of its main thread's stack every 2 ms of CPU time."""

import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

INTERVAL = 0.002  # seconds of CPU
_ROWS = 45


class Samples:
    """How often each function was running (`own`), or was on the stack (`within`)."""

    def __init__(self) -> None:
        self.own: Counter[str] = Counter()
        self.within: Counter[str] = Counter()

    def take(self, frame: FrameType | None) -> None:
        stack = []
        while frame is not None:
            stack.append(_name(frame))
            frame = frame.f_back
        if stack:
            self.own[stack[0]] += 1
            self.within.update(set(stack))

    def report(self) -> str:
        total = max(1, self.own.total())
        lines = [f"{total} samples, one every {INTERVAL * 1e3:g} ms of CPU"]
        for title, counter in (("own time", self.own), ("with what it calls", self.within)):
            lines += ["", title, *(f"{count / total:6.1%}  {name}" for name, count in counter.most_common(_ROWS))]
        return "\n".join(lines) + "\n"


def _name(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename)
    return f"{'/'.join(path.parts[-2:])}:{frame.f_code.co_firstlineno} {frame.f_code.co_qualname}"


def main() -> None:
    report = Path(sys.argv[1])
    sys.argv = ["interlock", *sys.argv[2:]]
    samples = Samples()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it once more after its own shutdown
    signal.signal(signal.SIGPROF, lambda _, frame: samples.take(frame))
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    try:
        runpy.run_module("gateway", run_name="__main__", alter_sys=False)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        report.write_text(samples.report())


if __name__ == "__main__":
    main()
