"""Evaluates jq expressions in worker processes, each within a time limit."""

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec
import structlog

WORKER: Final = Path(__file__).with_name("worker.py")
VALUE_MAX: Final = 32 << 20  # bytes of one request or answer
WALL_SECONDS: Final = 20.0  # until a worker is given up that neither answers nor uses its processor time
NO_VARIABLES: Final[Mapping[str, Any]] = MappingProxyType({})
log = structlog.get_logger()


class ExpressionFailed(Exception):
    """An expression has no value. `expression` is its text; the message says why and is safe to show to the workflow's author."""

    def __init__(self, expression: str, problem: str) -> None:
        super().__init__(problem)
        self.expression = expression


class _Answer(msgspec.Struct):
    values: list[Any] = []
    failed: int = -1
    problem: str = ""


_answer = msgspec.json.Decoder(_Answer).decode


class Evaluator:
    """A bounded set of worker processes, started when the first expression needs one and ended when they idle.

    A worker may use `seconds` of processor time for each request, and ends when it needs more. So an expression without end costs one
    worker for that time, and an expression on a busy machine has the value that it has elsewhere.
    """

    def __init__(self, workers: int = 2, seconds: float = 0.5, idle_seconds: float = 60.0) -> None:
        self._free: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()
        self._places = asyncio.Semaphore(workers)
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._closed = False

    async def evaluate(self, expressions: Sequence[str], input: Any, variables: Mapping[str, Any] = NO_VARIABLES) -> list[Any]:
        """The value of each expression, evaluated on `input`. Raises ExpressionFailed for the first one that has none."""
        return (
            await self._ask(expressions, {"expressions": expressions, "input": input, "variables": dict(variables)}) if expressions else []
        )

    async def compile(self, expressions: Sequence[str], names: Sequence[str]) -> None:
        """Raises ExpressionFailed for the first expression that is no jq or uses a variable that is not among `names`."""
        variables = dict.fromkeys(names)
        await self._ask(expressions, {"expressions": expressions, "input": None, "variables": variables, "compile": True})

    async def close(self) -> None:
        """Ends the workers that are idle, and those at work once they answered."""
        self._closed = True
        while not self._free.empty():
            await self._free.get_nowait().end()

    async def _ask(self, expressions: Sequence[str], request: Mapping[str, Any]) -> list[Any]:
        async with self._places:  # only then the data is copied: what waits holds none
            line = msgspec.json.encode({**request, "seconds": self._seconds})
            if len(line) > VALUE_MAX:
                raise ExpressionFailed(expressions[0], f"the data of the step has {len(line)} bytes, more than {VALUE_MAX}")
            worker: _Worker | None = await self._take_worker()
            assert worker is not None
            try:
                answer = await asyncio.wait_for(worker.ask(line), WALL_SECONDS)
            except (TimeoutError, _OutOfTime):
                raise ExpressionFailed(expressions[0], f"has no value within {self._seconds:g} seconds") from None
            except _WorkerEnded:
                raise ExpressionFailed(expressions[0], "needs more memory than an expression may have") from None
            else:
                self._give_back(worker)
                worker = None
            finally:
                if worker is not None:
                    await worker.end()
        if answer.failed >= 0:
            raise ExpressionFailed(expressions[answer.failed], answer.problem)
        return answer.values

    async def _take_worker(self) -> "_Worker":
        while not self._free.empty():
            worker = self._free.get_nowait()
            if worker.is_alive:
                worker.stop_idle_timer()
                return worker
        return await _Worker.start()

    def _give_back(self, worker: "_Worker") -> None:
        if self._closed:
            worker.kill()
            return
        worker.start_idle_timer(self._idle_seconds)
        self._free.put_nowait(worker)


class _WorkerEnded(Exception):
    """The worker process ended before it answered: jq ran out of memory."""


class _OutOfTime(Exception):
    """The worker process used its processor time before it answered."""


class _Worker:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def start(cls) -> "_Worker":
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", str(WORKER), stdin=PIPE, stdout=PIPE, stderr=asyncio.subprocess.DEVNULL, env={}, cwd="/", limit=VALUE_MAX
        )
        return cls(process)

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def ask(self, line: bytes) -> _Answer:
        """The answer to one request. Raises _WorkerEnded and _OutOfTime."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(line + b"\n")
            await stdin.drain()
            answered = await stdout.readline()
            return _answer(answered)
        except (ConnectionError, msgspec.DecodeError, ValueError) as error:
            await self.end()
            raise (_OutOfTime if self._process.returncode == -signal.SIGPROF else _WorkerEnded) from error

    def start_idle_timer(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self.kill)

    def stop_idle_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """Kills the process and waits until it is gone."""
        self.stop_idle_timer()
        self.kill()
        await self._process.wait()
