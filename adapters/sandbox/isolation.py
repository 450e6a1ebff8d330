"""The isolation of sandbox workers: bubblewrap where it works, system limits everywhere."""

import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BUBBLEWRAP: Final = "bubblewrap"
INTERPRETER: Final = "interpreter"  # without namespaces: only the interpreter's restrictions and system limits
NOBODY_ID: Final = "65534"
ADDRESS_SPACE: Final = 512 << 10  # KiB: above the interpreter's own limit
CPU_SECONDS: Final = 40
PROBE_SECONDS: Final = 10
LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib")
BUBBLEWRAP_OPTIONS: Final = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL", "--clearenv"),
    *("--die-with-parent", "--new-session", "--chdir", "/"),
)


@dataclass(frozen=True, slots=True)
class Isolation:
    """How workers are isolated. `command` starts a worker, before its own arguments; empty without an interpreter."""

    kind: str
    command: tuple[str, ...] = ()
    weakness: str = ""  # why bubblewrap is not used

    @property
    def is_strong(self) -> bool:
        return self.kind == BUBBLEWRAP

    @property
    def is_available(self) -> bool:
        return bool(self.command)


def find_isolation(interpreter: str | None = None) -> Isolation:
    """The strongest isolation that works. Tries each once, which takes some milliseconds."""
    program = interpreter or _find_interpreter()
    if not program:
        return Isolation(INTERPRETER, (), "the interpreter is not installed: pip install pydantic-monty")
    wrapper, why = shutil.which("bwrap"), "bubblewrap is not installed"
    for command in _bubblewrap_commands(wrapper, program) if wrapper else ():
        if not (why := _failure_of(command)):
            return Isolation(BUBBLEWRAP, command)
    return Isolation(INTERPRETER, ("env", "-i", program), why)


def write_launcher(found: Isolation, folder: Path) -> Path:
    """Writes a program that starts one worker, since the worker pool only takes a path. Safe against concurrent writes."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path, fresh = folder / f"{found.kind}.sh", folder / f"{found.kind}.{secrets.token_hex(8)}.new"
    fresh.write_text(_script(found.command))
    fresh.chmod(0o700)
    fresh.replace(path)
    return path.absolute()


def _script(command: Sequence[str]) -> str:
    limits = f"ulimit -c 0; ulimit -f 0; ulimit -n 64; ulimit -t {CPU_SECONDS}; ulimit -v {ADDRESS_SPACE}"
    return f'#!/bin/sh\n{limits}\nexec {shlex.join(command)} "$@" 2>/dev/null\n'


def _find_interpreter() -> str:
    """The interpreter beside the running Python, where its wheel puts it, or on the PATH; empty if there is none."""
    bundled = Path(sys.executable).parent / "monty"
    return str(bundled) if bundled.is_file() else shutil.which("monty") or ""


def _bubblewrap_commands(wrapper: str, program: str) -> Iterator[tuple[str, ...]]:
    """Yields bubblewrap commands, the strongest first: root drops its privileges, unless others can't read the interpreter."""
    inside = [wrapper, *BUBBLEWRAP_OPTIONS, "--ro-bind", program, "/interpreter"]
    for library in LIBRARIES:
        if Path(library).is_dir():
            inside += ["--ro-bind", library, library]
    inside += ["--", "/interpreter"]
    drop = shutil.which("setpriv") if os.geteuid() == 0 else None
    if drop:
        yield (drop, f"--reuid={NOBODY_ID}", f"--regid={NOBODY_ID}", "--clear-groups", "--no-new-privs", "--", *inside)
    yield tuple(inside)


def _failure_of(command: Sequence[str]) -> str:
    """The error when the command is tried; empty when it works."""
    try:
        script = _script(command).replace(" 2>/dev/null", "")
        done = subprocess.run(  # noqa: S603 (our own command)
            ["/bin/sh", "-c", script, "sh", "--version"], capture_output=True, timeout=PROBE_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"bubblewrap does not work here: {error}"
    last_line = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return "" if done.returncode == 0 else f"bubblewrap does not work here: {last_line[:200] or f'status {done.returncode}'}"
