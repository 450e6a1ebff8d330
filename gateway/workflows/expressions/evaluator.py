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

from gateway.workflows.expressions.turns import FairTurns

WORKER: Final = Path(__file__).with_name("worker.py")
VALUE_MAX: Final = 32 << 20  # bytes of one request or answer
WALL_SECONDS: Final = 20.0  # until a worker is given up that neither answers nor uses its processor time
END_SECONDS: Final = 2.0  # for a worker that has closed its output to end
KILLED_MAX: Final = 5  # workers that are killed from outside at one request, until it is given up
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
    """Evaluates expressions for one owner in a bounded set of worker processes, which it shares with the evaluators of other owners.

    A worker may use `seconds` of processor time for each request, and ends when it needs more. So an expression without end costs one
    worker for that time, and an expression on a busy machine has the value that it has elsewhere. Tenants, and the owners of a tenant,
    take turns: many slow expressions of one delay an expression of another by one request at most.
    """

    def __init__(
        self, workers: int = 2, seconds: float = 0.5, idle_seconds: float = 60.0, *, pool: "_WorkerPool | None" = None, owner: str = ""
    ) -> None:
        """`owner` is a text that begins with the tenant and a vertical bar. The processes are those of `pool`, if it is given."""
        self._pool = pool or _WorkerPool(workers, seconds, idle_seconds)
        self._owner = owner

    def for_owner(self, owner: str) -> "Evaluator":
        """An evaluator of another owner, with the same processes."""
        return Evaluator(pool=self._pool, owner=owner)

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
        await self._pool.close()

    async def _ask(self, expressions: Sequence[str], request: Mapping[str, Any]) -> list[Any]:
        return await self._pool.ask(self._owner, expressions, request)


class _WorkerPool:
    """The worker processes, started when the first expression needs one and ended when they idle."""

    def __init__(self, workers: int, seconds: float, idle_seconds: float) -> None:
        self._free: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()
        self._turns = FairTurns(workers)
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        while not self._free.empty():
            await self._free.get_nowait().end()

    async def ask(self, owner: str, expressions: Sequence[str], request: Mapping[str, Any]) -> list[Any]:
        """The values of expressions. Raises ExpressionFailed."""
        async with self._turns.turn_of(owner):  # only then the data is copied: what waits holds none
            line = msgspec.json.encode({**request, "seconds": self._seconds})
            if len(line) > VALUE_MAX:
                raise ExpressionFailed(expressions[0], f"the data of the step has {len(line)} bytes, more than {VALUE_MAX}")
            answer = await self._answer(expressions[0], line)
        if answer.failed >= 0:
            raise ExpressionFailed(expressions[answer.failed], answer.problem)
        return answer.values

    async def _answer(self, expression: str, line: bytes) -> _Answer:
        """Asks a worker, and another one where it is killed from outside: what an expression evaluates to depends on its data alone."""
        for _ in range(KILLED_MAX):
            try:
                return await self._ask_worker(line)
            except (TimeoutError, _OutOfTime):
                raise ExpressionFailed(expression, f"has no value within {self._seconds:g} seconds") from None
            except _WorkerEnded:
                raise ExpressionFailed(expression, "needs more memory than an expression may have") from None
            except _WorkerKilled:
                log.warning("expression_worker_killed")
        raise ExpressionFailed(expression, f"has no value, since {KILLED_MAX} processes that evaluated it were killed")

    async def _ask_worker(self, line: bytes) -> _Answer:
        worker: _Worker | None = await self._take_worker()
        assert worker is not None
        try:
            answer = await asyncio.wait_for(worker.ask(line), WALL_SECONDS)
            self._give_back(worker)
            worker = None
            return answer
        finally:
            if worker is not None:
                await worker.end()

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


class _WorkerKilled(Exception):
    """Something else has killed the worker process, by SIGKILL; no limit of an expression does that."""


_CAUSES: Final[Mapping[int, type[Exception]]] = {-signal.SIGPROF: _OutOfTime, -signal.SIGKILL: _WorkerKilled}


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
        """The answer to one request. Raises _WorkerEnded, _WorkerKilled and _OutOfTime."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(line + b"\n")
            await stdin.drain()
            answered = await stdout.readline()
            return _answer(answered)
        except (ConnectionError, RuntimeError, msgspec.DecodeError, ValueError) as error:  # RuntimeError: uvloop has closed the pipe
            raise await self._cause_of_end() from error

    async def _cause_of_end(self) -> Exception:
        """Why the process has no answer. It is not killed while it ends by itself, which would hide the cause."""
        try:
            code = await asyncio.wait_for(self._process.wait(), END_SECONDS)
        except TimeoutError:
            await self.end()
            return _WorkerEnded()
        return _CAUSES.get(code, _WorkerEnded)()

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
