"""The programs of the demo: started on free loopback ports, watched until they answer, ended by their process ids."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import httpx

from examples.demo.screen import StepFailed

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
PATIENCE = 120.0  # seconds one program may take to answer


def free_port(preferred: int = 0) -> int:
    """`preferred` when nobody listens there, else any free port of the loopback interface."""
    try:
        with socket.create_server((HOST, preferred)) as listener:
            return int(listener.getsockname()[1])
    except OSError:
        return free_port()


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def wait_until_ready(self, path: str) -> None:
        """Returns when the program answers on `path`. Raises StepFailed with the end of its log."""
        until = monotonic() + PATIENCE
        while self.process.poll() is None and monotonic() < until:
            try:
                if httpx.get(self.url + path, timeout=2, trust_env=False).status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    return
            except httpx.TransportError:
                sleep(0.05)
        raise StepFailed(f"{self.name} does not answer on {self.url}{path}")

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


class Programs:
    """All that were started. Each writes its log to a file of its own under `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.started: list[Program] = []

    def start(self, module: str, port: int, *arguments: str, **environment: str) -> Program:
        """`python -m module --port …` in a session of its own, so that Ctrl-C reaches the demo alone."""
        command = [sys.executable, "-m", module, *arguments, "--port", str(port)]
        return self.run(module.rpartition(".")[2], command, port, self.home, **environment)

    def run(self, name: str, command: Sequence[str | Path], port: int, folder: Path, **environment: str) -> Program:
        """Any command that serves on that port, likewise."""
        log = self.home / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=surroundings(**environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(Program(name, f"http://{HOST}:{port}", log, process))
        return self.started[-1]

    def stop(self) -> None:
        """Ends them, the last started first; what does not listen within five seconds is killed."""
        for program in reversed(self.started):
            program.process.terminate()
        for program in reversed(self.started):
            try:
                program.process.wait(5)
            except subprocess.TimeoutExpired:
                program.process.kill()
                program.process.wait(5)
        self.started.clear()


def surroundings(**more: str) -> dict[str, str]:
    """The environment without the settings of any other gateway, able to import this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INTERLOCK_")}
    return {**kept, "PYTHONPATH": str(ROOT), "OTEL_INSTRUMENTATION_A2A_SDK_ENABLED": "false", **more}
