"""One command as an MCP server: started when needed, again with patience when it died; its output is bounded, its environment listed."""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import structlog

from adapters.contract import Unreachable, UpstreamFault
from adapters.mcp_duplex import Duplex, Send
from adapters.mcp_http import LATE
from adapters.mcp_sessions import NotLegacy
from adapters.mcp_wire import BadAnswer

log = structlog.get_logger()

START_SECONDS: Final = 15.0
PATIENCE_MAX: Final = 60.0  # seconds between two starts of a command that fails
END_SECONDS: Final = 2.0  # that a process has to end by itself, and again when it was asked to
LINE_MAX: Final = 16 << 20  # bytes of one message
JUNK_MAX: Final = 1000  # lines that are no messages
NOT_STARTED: Final = "The server's command does not start"


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. Its environment has `env` and nothing else."""

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


class Process:
    """At most one running process. `owned`: by one client; else it serves everybody at once."""

    def __init__(self, name: str, command: Command, clock: Callable[[], float], capabilities: str = "{}", owned: bool = False) -> None:
        self._name = name
        self._command = command
        self._clock = clock
        self._capabilities = capabilities
        self._owned = owned
        self._lock = asyncio.Lock()
        self._running: asyncio.Task[None] | None = None
        self._duplex: Duplex | None = None
        self._failures = 0
        self._not_before = 0.0
        self.used = clock()

    @property
    def busy(self) -> bool:
        return self._duplex is not None and self._duplex.busy

    async def duplex(self, seconds: float) -> Duplex:
        """The open channel, started where needed. Raises UpstreamFault."""
        self.used = self._clock()
        if self._duplex is not None and self._duplex.ended is None:
            return self._duplex
        try:
            async with asyncio.timeout(max(seconds, 0.001)), self._lock:
                if self._duplex is None or self._duplex.ended is not None:
                    self._duplex = await self._start()
                return self._duplex
        except TimeoutError as error:
            raise Unreachable(LATE, "starting") from error

    async def _start(self) -> Duplex:
        if self._clock() < self._not_before:
            raise UpstreamFault("The server's command keeps failing", f"{self._failures} times")
        began, child = self._clock(), await self._spawn()
        assert child.stdin is not None and child.stdout is not None
        duplex = Duplex(_writer(child.stdin), self._owned)
        self._running = running = asyncio.create_task(self._read(child, child.stdout, duplex, began))
        ending = asyncio.create_task(_until_dead(child, running))
        running.add_done_callback(lambda _: ending.cancel())
        try:
            async with asyncio.timeout(START_SECONDS):
                await duplex.open(self._capabilities, START_SECONDS, may_be_modern=True)
        except (UpstreamFault, NotLegacy, TimeoutError) as error:
            self._running.cancel()
            raise UpstreamFault(NOT_STARTED, f"no handshake: {error}") from error
        except asyncio.CancelledError:
            self._running.cancel()
            raise
        return duplex

    async def _spawn(self) -> asyncio.subprocess.Process:
        program = shutil.which(self._command.command)
        try:
            if program is None:
                raise FileNotFoundError
            return await asyncio.create_subprocess_exec(
                program,
                *self._command.args,
                env=dict(self._command.env),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=LINE_MAX,
                start_new_session=True,  # so that it ends with all that it started
            )
        except OSError as error:
            self._failed(self._clock())
            raise UpstreamFault(NOT_STARTED, type(error).__name__) from error

    async def _read(self, child: asyncio.subprocess.Process, lines: asyncio.StreamReader, duplex: Duplex, began: float) -> None:
        """The root of the process's task: from its start to its end."""
        fault: UpstreamFault = Unreachable("The server's process ended", "end of output")
        junk = 0
        try:
            while line := await lines.readline():
                try:
                    await duplex.receive(line)
                except BadAnswer:
                    junk += 1  # a program that also prints other things
                    if junk > JUNK_MAX:
                        fault = UpstreamFault("The server's messages are not valid", f"{junk} lines")
                        break
        except ValueError:
            fault = UpstreamFault("The server's answer is too large", f"a line of more than {LINE_MAX} bytes")
        finally:
            duplex.end(fault)
            self._failed(began)
            log.warning("mcp.stdio.ended", server=self._name, detail=fault.detail)
            await asyncio.shield(asyncio.ensure_future(end(child)))

    def _failed(self, began: float) -> None:
        """Each end counts, unless it came after a long life; nobody starts it again at once."""
        self._failures = 0 if self._clock() - began > PATIENCE_MAX else self._failures + 1
        self._not_before = self._clock() + min(PATIENCE_MAX, 2.0 ** (self._failures - 1)) if self._failures > 1 else 0.0

    async def stop(self) -> None:
        """Ends it, with all that it started."""
        if self._duplex is not None:
            self._duplex.end(UpstreamFault("The server's process was stopped"))
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running], timeout=3 * END_SECONDS)


async def _until_dead(child: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
    """Ends the reading after the process, whose output another one may hold open."""
    await child.wait()
    await asyncio.sleep(END_SECONDS)
    reading.cancel()


def _writer(stdin: asyncio.StreamWriter) -> Send:
    async def write(body: bytes) -> None:
        try:
            stdin.write(body + b"\n")
            await stdin.drain()
        except (OSError, RuntimeError) as error:
            raise Unreachable("The server's process ended", type(error).__name__) from error

    return write


async def end(child: asyncio.subprocess.Process) -> None:
    """2026-07-28, stdio: its input is closed, then it is asked, then it is forced; and so are the processes that it started."""
    if child.stdin is not None:
        child.stdin.close()
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), END_SECONDS)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, sign)
    await child.wait()
