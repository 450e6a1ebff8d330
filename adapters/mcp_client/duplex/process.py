"""A command as an MCP server: its process is started on demand and restarted with backoff; its output and environment are bounded."""

import asyncio
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import Final, NamedTuple, cast

import structlog

from adapters.contract import Failure, Unreachable, UpstreamFault
from adapters.mcp_client.duplex.channel import DuplexChannel
from adapters.mcp_client.duplex.ping import answers_ping
from adapters.mcp_client.exchange.http import LATE_TEXT
from adapters.mcp_client.legacy.sessions import NotLegacy
from adapters.upstream.breaker import CircuitOpen

log = structlog.get_logger()

RESTART_MAX: Final = 10.0  # seconds between two starts of a command that fails
STABLE_SECONDS: Final = 60.0  # seconds after which an exit does not count as a failed start
END_SECONDS: Final = 2.0  # that a process has to exit by itself, and again after a signal
LINE_MAX: Final = 16 << 20  # bytes of one message
JUNK_MAX: Final = 1000  # lines that are no messages
ERROR_LINES_MAX: Final = 50  # of standard error
ERROR_LINE_MAX: Final = 500  # characters of each
ERROR_LINES_LOGGED: Final = 5  # the number of them that is logged when a process ends
LAST_OUTPUT_SECONDS: Final = 0.5  # in which the last output of a process may still arrive
SECRET_MIN: Final = 6  # characters: shorter values occur in texts by chance
STDERR_FD: Final = 2
ENDED_TEXT: Final = "The server's process ended"
STOPPED_TEXT: Final = "The server's process was stopped"
HUNG: Final = "The server's process answers nothing any more, and is started again with the next call"
NOT_STARTED_TEXT: Final = "The server's command does not start"


@dataclass(frozen=True, slots=True)
class Command:
    """A command to run. Its environment has only `env`; `secrets` are values in it that are never shown.

    `initialize`: the operator chose the legacy era.
    """

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    initialize: bool = False


class StartTimeouts(NamedTuple):
    """Seconds that a started command has for its handshake, and to show first that it is modern."""

    handshake: float
    discover: float


class ProcessOwner(NamedTuple):
    """The client that owns a process: its capabilities as JSON, and whether it is of the legacy era, which is then preferred."""

    capabilities: str
    is_legacy: bool


class ServerProcess:
    """At most one running process. `owner`: the client that it belongs to; None: it serves all clients."""

    def __init__(self, name: str, command: Command, clock: Callable[[], float], owner: ProcessOwner | None, start: StartTimeouts) -> None:
        self._name = name
        self._command = command
        self._clock = clock
        self._owner = owner
        self._start_timeouts = start
        self._starting: asyncio.Task[DuplexChannel] | None = None
        self._stopped = False
        self._run_tasks: set[asyncio.Task[None]] = set()  # including processes that are still ending
        self._child: _ChildProtocol | None = None
        self._duplex: DuplexChannel | None = None
        self._ping: asyncio.Task[None] | None = None
        self._failures = 0
        self._not_before = 0.0
        self._errors = ErrorOutput(command.secrets)
        self.used = clock()

    @property
    def error_lines(self) -> list[str]:
        """The last lines of standard error, of this process and earlier ones."""
        return self._errors.lines

    @property
    def is_busy(self) -> bool:
        return self._duplex is not None and self._duplex.is_busy

    @property
    def channel(self) -> DuplexChannel | None:
        """The channel, once it was opened."""
        return self._duplex

    async def open_channel(self, seconds: float) -> DuplexChannel:
        """The open channel; starts the process if needed. Raises UpstreamFault."""
        self.used = self._clock()
        if self._ping is not None and not self._ping.done():
            await asyncio.wait([self._ping], timeout=max(seconds, 0.001))
        if self._duplex is not None and self._duplex.end_fault is None:
            return self._duplex
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            async with asyncio.timeout(max(seconds, 0.001)):
                return await asyncio.shield(self._starting)  # the start continues for other callers after a timeout
        except TimeoutError as error:
            raise Unreachable(LATE_TEXT, "starting", Failure.LATE) from error

    async def _start(self) -> DuplexChannel:
        if self._clock() < self._not_before:
            raise CircuitOpen("The server's command keeps failing", f"{self._failures} times", self._not_before - self._clock())
        began, child = self._clock(), _ChildProtocol(self._errors, has_one_client=self._owner is not None)
        await self._spawn(child)
        self._child, duplex = child, child.duplex
        running = asyncio.create_task(self._run(child, duplex, began))
        self._run_tasks.add(running)
        running.add_done_callback(self._run_tasks.discard)
        if self._stopped:
            child.stop(UpstreamFault(STOPPED_TEXT))
        try:
            async with asyncio.timeout(self._start_timeouts.handshake):
                await self._shake_hands(duplex)
        except (UpstreamFault, NotLegacy, TimeoutError) as error:
            child.stop(UpstreamFault(STOPPED_TEXT))
            raise UpstreamFault(
                NOT_STARTED_TEXT, f"no handshake: {error}; it said: {' / '.join(self.error_lines[-ERROR_LINES_LOGGED:])}"
            ) from error
        self._duplex = duplex
        return duplex

    async def _shake_hands(self, duplex: DuplexChannel) -> None:
        capabilities, seconds = self._owner.capabilities if self._owner is not None else "{}", self._start_timeouts.handshake
        if self._owner is not None and self._owner.is_legacy:
            with suppress(NotLegacy):  # the command knows the other era only
                await duplex.shake_hands(capabilities, seconds, discover_seconds=None)
                return
        discover_seconds = None if self._command.initialize else self._start_timeouts.discover
        await duplex.shake_hands(capabilities, seconds, discover_seconds=discover_seconds)

    async def _spawn(self, child: "_ChildProtocol") -> None:
        program = shutil.which(self._command.command, path=self._command.env.get("PATH"))
        try:
            if program is None:
                raise FileNotFoundError(f"no program {self._command.command} on the PATH")
            await asyncio.get_running_loop().subprocess_exec(
                lambda: child,
                program,
                *self._command.args,
                env=dict(self._command.env),
                start_new_session=True,  # so that all its descendants can be ended
            )
        except OSError as error:
            self._count_end(self._clock())
            self._errors.add(str(error).encode() + b"\n")
            log.warning("mcp_process_not_started", server=self._name, error=str(error))
            raise UpstreamFault(NOT_STARTED_TEXT, str(error)) from error

    async def _run(self, child: "_ChildProtocol", duplex: DuplexChannel, began: float) -> None:
        """The root of the process's task, from its start to its end."""
        fault = UpstreamFault(STOPPED_TEXT)
        try:
            fault = await child.ended
        finally:
            duplex.end(fault)
            self._count_end(began)
            level, last_lines = INFO if fault.public == STOPPED_TEXT else WARNING, self.error_lines[-ERROR_LINES_LOGGED:]
            log.log(level, "mcp_process_ended", server=self._name, detail=fault.detail, said=last_lines)
            await asyncio.shield(asyncio.ensure_future(child.end()))

    def _count_end(self, began: float) -> None:
        """Counts an end as a failure, unless the process had run long, and delays the next start."""
        self._failures = 0 if self._clock() - began > STABLE_SECONDS else self._failures + 1
        self._not_before = self._clock() + min(RESTART_MAX, 2.0 ** (self._failures - 1)) if self._failures > 1 else 0.0

    def check_responsive(self, duplex: DuplexChannel, seconds: float) -> None:
        """Ends the process behind `duplex` unless it answers a ping within `seconds`; the next call starts another one."""
        if self._duplex is duplex and duplex.end_fault is None and (self._ping is None or self._ping.done()):
            self._ping = asyncio.create_task(self._end_if_hung(duplex, seconds))

    async def _end_if_hung(self, duplex: DuplexChannel, seconds: float) -> None:
        if await answers_ping(duplex, seconds) or self._child is None or self._duplex is not duplex or duplex.end_fault is not None:
            return
        hung = Unreachable(HUNG, f"no answer to a ping in {seconds:.1f} s", Failure.LATE)
        duplex.end(hung)
        self._child.stop(hung)

    async def stop(self) -> None:
        """Ends the process and its descendants."""
        self._stopped = True
        if self._ping is not None:
            self._ping.cancel()
        if self._child is not None:
            self._child.stop(UpstreamFault(STOPPED_TEXT))
        if self._starting is not None:
            await asyncio.wait([self._starting], timeout=3 * END_SECONDS)
        if self._run_tasks:
            await asyncio.wait(self._run_tasks, timeout=3 * END_SECONDS)


class ErrorOutput:
    """The last lines that a program wrote to standard error, with `secrets` masked."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = sorted((secret for secret in secrets if len(secret) >= SECRET_MIN), key=len, reverse=True)
        self._lines: deque[str] = deque(maxlen=ERROR_LINES_MAX)
        self._unfinished_line = b""

    @property
    def lines(self) -> list[str]:
        return [*self._lines, *([self._redact(self._unfinished_line)] if self._unfinished_line else [])]

    def add(self, data: bytes) -> None:
        """Adds received bytes. Of a line without an end, only the beginning is kept."""
        *ended, rest = (self._unfinished_line + data).split(b"\n")
        self._lines.extend(self._redact(line) for line in ended[-ERROR_LINES_MAX:] if line.strip())
        self._unfinished_line = rest[: 4 * ERROR_LINE_MAX]

    def _redact(self, line: bytes) -> str:
        text = line.decode("utf-8", "replace")[: 4 * ERROR_LINE_MAX]
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return "".join(letter if letter.isprintable() else " " for letter in text).rstrip()[:ERROR_LINE_MAX]


class _ChildProtocol(asyncio.SubprocessProtocol):
    """The running program: its output lines go to `duplex`; `ended` resolves to the fault when it ends."""

    transport: asyncio.SubprocessTransport

    def __init__(self, errors: ErrorOutput, *, has_one_client: bool) -> None:
        self._errors = errors
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []  # of the incomplete line
        self._size = 0
        self._junk_lines = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._exited = asyncio.Event()
        self.duplex = DuplexChannel(self.send, has_one_client)
        self.ended: asyncio.Future[UpstreamFault] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.SubprocessTransport", transport)  # uvloop's is no subclass of it

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        if fd == STDERR_FD:
            self._errors.add(cast("bytes", data))
            return
        *ended, rest = cast("bytes", data).split(b"\n")
        for piece in ended:
            line, self._size = b"".join([*self._pieces, piece]), 0
            self._pieces.clear()
            self._take_line(line)
        self._pieces.append(rest)
        self._size += len(rest)
        if self._size > LINE_MAX:
            self._pieces.clear()
            self.stop(UpstreamFault("The server's answer is too large", f"a line of more than {LINE_MAX} bytes"))

    def _take_line(self, line: bytes) -> None:
        if self.ended.done() or not line.strip():
            return
        try:
            self.duplex.receive(line)
        except UpstreamFault:
            self._junk_lines += 1  # a program may also print other text
            if self._junk_lines > JUNK_MAX:
                self.stop(UpstreamFault("The server's messages are not valid", f"{self._junk_lines} lines"))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self.stop(Unreachable(ENDED_TEXT, "end of output"))

    def process_exited(self) -> None:
        """Stops after LAST_OUTPUT_SECONDS: output may still arrive, and descendants may keep the pipe open."""
        self._exited.set()
        self._loop.call_later(LAST_OUTPUT_SECONDS, self.stop, Unreachable(ENDED_TEXT, "exited"))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def stop(self, fault: UpstreamFault) -> None:
        """Ignores all further output; `end` ends the process."""
        self._writable.set()
        if not self.ended.done():
            self.ended.set_result(fault)

    async def send(self, body: bytes) -> None:
        stdin = cast("asyncio.WriteTransport | None", self.transport.get_pipe_transport(0))
        await self._writable.wait()
        if self.ended.done() or stdin is None or stdin.is_closing():
            raise Unreachable(ENDED_TEXT, "its input is closed")
        stdin.write(body + b"\n")

    async def end(self) -> None:
        """Ends the process group by stdio's shutdown sequence (2026-07-28): closes its input, then SIGTERM, then SIGKILL."""
        stdin = self.transport.get_pipe_transport(0)
        if stdin is not None:
            stdin.close()
        pid = self.transport.get_pid()
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._exited.wait(), END_SECONDS)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, sign)
        await self._exited.wait()
        self.transport.close()
