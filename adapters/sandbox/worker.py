"""Runs calculations in worker processes: each gets a new one, which ends afterwards whatever the code did."""

import asyncio
import json
import math
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from pydantic_monty import (
    AsyncMonty,
    AsyncMontySession,
    CollectString,
    MontyCrashedError,
    MontyError,
    MontyRuntimeError,
    MontySyntaxError,
    OSPolicy,
    ResourceLimits,
)

from adapters.sandbox.calculation import (
    CODE_MAX,
    DEFAULT_LIMITS,
    INPUTS_MAX,
    SECONDS_MAX,
    BadCalculation,
    CalculationError,
    CalculationLimits,
    CalculationResult,
    Calculator,
    CalculatorBusy,
)
from adapters.sandbox.isolation import Isolation, write_launcher

WAITING_MAX: Final = 64
GRACE_SECONDS: Final = 0.5  # that a worker has to stop by itself before it is killed
BACKSTOP_SECONDS: Final = 10.0  # for everything but execution: starting a worker and reading its result
MESSAGE_MAX: Final = 1000  # characters
NODES_MAX: Final = 20_000
DEPTH_MAX: Final = 64
EXACT_INTEGER_MAX: Final = 1 << 63
CLOCK_POLICY: Final[OSPolicy] = {"sleep": "zero"}  # sleeping does not count as execution, so it would evade every limit


class NotJson(Exception):
    """The value can't be represented in JSON; the text says why."""


class ValueTooLarge(NotJson):
    """The value is larger than allowed."""


ERROR_TYPES: Final = {TimeoutError: "WorkerLost", NotJson: "NotJson", ValueTooLarge: "OutputLimit"}


class Sandbox:
    """Runs at most `workers` calculations at once. `folder` holds the program that starts workers."""

    def __init__(self, isolation: Isolation, folder: Path, workers: int) -> None:
        self._isolation = isolation
        self._folder = folder
        self._run_slots = asyncio.Semaphore(workers)
        self._workers = workers
        self._requested = 0
        self._pool: AsyncMonty | None = None
        self._pool_lock = asyncio.Lock()

    async def run(self, code: str, inputs: Mapping[str, Any], limits: CalculationLimits = DEFAULT_LIMITS) -> CalculationResult:
        """Runs a calculation; errors of the code are part of the result. Raises BadCalculation and CalculatorBusy."""
        _check_request(code, inputs, limits)
        if self._requested >= self._workers + WAITING_MAX:
            raise CalculatorBusy
        self._requested += 1
        try:
            async with self._run_slots:
                return await self._calculate(await self._open_pool(), code, inputs, limits)
        finally:
            self._requested -= 1

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.__aexit__(None, None, None)

    async def _open_pool(self) -> AsyncMonty:
        async with self._pool_lock:
            if self._pool is None:
                program = await asyncio.to_thread(write_launcher, self._isolation, self._folder)
                pool = AsyncMonty(
                    binary_path=program,
                    min_processes=0,
                    max_processes=self._workers,
                    max_checkouts_per_worker=1,
                    feed_duration_limit_grace=GRACE_SECONDS,
                )
                self._pool = await pool.__aenter__()
            return self._pool

    async def _calculate(self, pool: AsyncMonty, code: str, inputs: Mapping[str, Any], limits: CalculationLimits) -> CalculationResult:
        allowed: ResourceLimits = {"max_feed_duration_secs": limits.seconds, "max_memory": limits.memory}
        printed = CollectString(limits.output)
        session = pool.checkout(script_name="code", limits=allowed, os_policy=CLOCK_POLICY)
        try:
            async with asyncio.timeout(limits.seconds + BACKSTOP_SECONDS), session:
                value = await _run_code(session, code, inputs, printed)
            return CalculationResult(self._isolation.kind, to_json_value(value, limits.output, exact=limits.exact), printed.output)
        except MontyError as error:
            wrong = _error_of(error, limits)
        except (TimeoutError, NotJson) as error:
            wrong = CalculationError(ERROR_TYPES[type(error)], str(error) or "no answer in time")
        return CalculationResult(self._isolation.kind, None, printed.output[: limits.output], wrong)


async def _run_code(session: AsyncMontySession, code: str, inputs: Mapping[str, Any], printed: CollectString) -> Any:
    """Runs code in a session. A cancellation also kills the worker."""
    worker = session.worker_pid
    try:
        return await session.feed_run(code, inputs=dict(inputs), print_callback=printed)
    except asyncio.CancelledError:
        if worker is not None:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        raise


def _check_request(code: str, inputs: Mapping[str, Any], limits: CalculationLimits) -> None:
    if len(code.encode(errors="surrogatepass")) > CODE_MAX:
        raise BadCalculation(f"code is longer than {CODE_MAX} bytes")
    if "\x00" in code or any("\ud800" <= character <= "\udfff" for character in code):
        raise BadCalculation("code has characters that Python source can't have")
    if unfit := next((name for name in inputs if not name.isidentifier()), None):
        raise BadCalculation(f"inputs: {unfit[:64]!r} is not a valid variable name")
    if len(json.dumps(dict(inputs), default=str)) > INPUTS_MAX:
        raise BadCalculation(f"inputs are larger than {INPUTS_MAX} bytes")
    if not 0 < limits.seconds <= SECONDS_MAX:
        raise BadCalculation(f"seconds must be more than 0 and at most {SECONDS_MAX:g}")


def _error_of(error: MontyError, limits: CalculationLimits) -> CalculationError:
    if isinstance(error, MontyCrashedError):
        late = error.timed_out
        reason = "it did not stop in time, and its worker was ended" if late else "its worker ended"
        return CalculationError("TimeLimit" if late else "WorkerLost", reason)
    inner, message = error.exception(), str(error.exception())[:MESSAGE_MAX]
    frames = error.traceback() if isinstance(error, MontyRuntimeError | MontySyntaxError) else []
    line = frames[-1].line if frames else None
    if not frames and isinstance(inner, TimeoutError):
        return CalculationError("TimeLimit", f"it ran longer than {limits.seconds:g} s")
    if isinstance(inner, MemoryError):
        if not frames and message.endswith(f"> {limits.output} bytes"):
            return CalculationError("OutputLimit", f"it printed more than {limits.output} bytes")
        return CalculationError("MemoryLimit", f"it needed more than {limits.memory >> 20} MiB", line)
    return CalculationError(type(inner).__name__, message, line)


def to_json_value(value: Any, size: int, *, exact: bool = False) -> Any:
    """A value as JSON of at most about `size` bytes; a Decimal becomes a text. Raises NotJson and ValueTooLarge.

    A value may contain the same list many times, so its size is counted during the copy. `exact`: floats are refused.
    """
    return _JsonCopier(size, exact).copy(value, 0)


class _JsonCopier:
    def __init__(self, size: int, exact: bool) -> None:
        self._bytes_left = size
        self._exact = exact
        self._nodes_left = NODES_MAX

    def copy(self, value: Any, depth: int) -> Any:
        self._nodes_left -= 1
        if depth > DEPTH_MAX:
            raise NotJson(f"the value is nested deeper than {DEPTH_MAX}")
        if isinstance(value, dict):
            self._count_bytes(2)
            return {self._member_name(key): self.copy(each, depth + 1) for key, each in value.items()}
        if isinstance(value, list | tuple):
            self._count_bytes(2)
            return [self.copy(each, depth + 1) for each in value]
        return self._copy_scalar(value)

    def _copy_scalar(self, value: Any) -> Any:
        if isinstance(value, Decimal | datetime | date | time | timedelta):
            value = str(value) if isinstance(value, Decimal | timedelta) else value.isoformat()
        if isinstance(value, str):
            self._count_bytes(2 + len(value.encode(errors="replace")))
            if any("\ud800" <= character <= "\udfff" for character in value):
                raise NotJson("a string with lone surrogates is not JSON")
            return value
        self._count_bytes(8)
        if self._exact and isinstance(value, float):
            raise NotJson(f"{value} is a float, which holds no exact amount: return an integer or a Decimal")
        if isinstance(value, float) and not math.isfinite(value):
            raise NotJson(f"{value} is not JSON: return a string")
        if isinstance(value, int) and not -EXACT_INTEGER_MAX <= value < EXACT_INTEGER_MAX:
            raise NotJson("an integer of more than 64 bits can't be represented exactly: return str(…)")
        if value is None or isinstance(value, bool | int | float):
            return value
        raise NotJson(f"a value of the type {type(value).__name__.removeprefix('Monty')[:64]} is not JSON")

    def _member_name(self, key: Any) -> str:
        if not isinstance(key, str):
            raise NotJson("an object's names must be strings")
        return str(self._copy_scalar(key))

    def _count_bytes(self, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left < 0 or self._nodes_left < 0:
            raise ValueTooLarge("the value is too large: return less of it")


_: type[Calculator] = Sandbox
