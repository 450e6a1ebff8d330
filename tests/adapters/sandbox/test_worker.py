"""Calculations in workers of their own: what code can't reach, what stops it, and what is told of it."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from adapters.sandbox import isolation as isolations
from adapters.sandbox.calculation import CODE_MAX, DEFINITION, INPUTS_MAX, BadCalculation, CalculationLimits, CalculatorBusy, to_decimals
from adapters.sandbox.isolation import BUBBLEWRAP, INTERPRETER, Isolation, find_isolation, write_launcher
from adapters.sandbox.worker import NODES_MAX, WAITING_MAX, NotJson, Sandbox, to_json_value

FOUND = find_isolation()


def without_bubblewrap(interpreter: str | None = None) -> Isolation:
    """What the gateway uses on a machine that has no bubblewrap."""
    program = interpreter or isolations._find_interpreter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        return find_isolation(program)


PLAIN = without_bubblewrap()
SHORT, LONG = CalculationLimits(seconds=0.2), CalculationLimits(seconds=30)
FOREVER = "while True: pass"


def isolated() -> list[Any]:
    """Both kinds, where this machine has both; the reason is printed where it has not."""
    reason = FOUND.weakness or "bubblewrap works"
    return [
        pytest.param(PLAIN, id=INTERPRETER),
        pytest.param(FOUND, id=BUBBLEWRAP, marks=pytest.mark.skipif(not FOUND.is_strong, reason=reason)),
    ]


@pytest.fixture(params=isolated())
async def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sandbox]:
    opened = Sandbox(request.param, tmp_path / "sandbox", 2)
    yield opened
    await opened.close()


async def test_the_value_of_the_last_expression_is_returned_with_what_was_printed(sandbox: Sandbox) -> None:
    done = await sandbox.run("print('one')\ntotal = sum(prices)\n{'total': total, 'each': (1, 2.5, None, True)}", {"prices": [1, 2, 3]})
    assert (done.value, done.output, done.error) == ({"total": 6, "each": [1, 2.5, None, True]}, "one\n", None)
    assert done.isolation in (BUBBLEWRAP, INTERPRETER)


async def test_an_exact_calculation_has_no_float(sandbox: Sandbox) -> None:
    exact, inputs = CalculationLimits(exact=True), to_decimals({"price": 0.1, "rate": 0.2})
    assert (await sandbox.run("price + rate", inputs, exact)).value == "0.3"
    for code, kind in (("1 / 4", "NotJson"), ("{'sum': [0.5]}", "NotJson"), ("price * 1.5", "TypeError")):
        error = (await sandbox.run(code, inputs, exact)).error
        assert error is not None and error.type == kind
    assert (await sandbox.run("1 / 4", inputs)).value == 0.25


@pytest.mark.parametrize(
    ("code", "kind", "line"),
    [
        ("1\n1/0", "ZeroDivisionError", 2),
        ("def x(:", "SyntaxError", 1),
        ("def f(n):\n  raise ValueError('no ' + n)\nf('good')", "ValueError", 2),
        ("missing", "NameError", 1),
    ],
)
async def test_an_error_has_its_class_and_line(sandbox: Sandbox, code: str, kind: str, line: int) -> None:
    done = await sandbox.run(code, {})
    assert done.error is not None and (done.error.type, done.error.line) == (kind, line)


ESCAPES = {
    "a file": "open('/etc/passwd').read()",
    "a file by path": "from pathlib import Path\nPath('/etc/passwd').read_text()",
    "a folder": "from pathlib import Path\nlist(Path('/').iterdir())",
    "environment": "import os\nos.environ['PATH']",
    "environment by getenv": "import os\nos.getenv('PATH') or 1/0",
    "os.system": "import os\nos.system('id')",
    "fork": "import os\nos.fork()",
    "kill -9 1": "import os\nos.kill(1, 9)",
    "subprocess": "import subprocess",
    "a socket": "import socket",
    "an address": "import urllib.request",
    "ctypes": "import ctypes",
    "a walk of subclasses": "().__class__.__bases__[0].__subclasses__()",
    "an attribute by name": "getattr((), '__class__')",
    "an import by name": "__import__('os').system('id')",
    "importlib": "import importlib",
    "globals": "(lambda: 1).__globals__",
    "/proc": "open('/proc/self/environ').read()",
    "/proc of the first process": "open('/proc/1/root/etc/passwd').read()",
    "mount": "import os\nos.mount('a', 'b')",
    "unshare": "import os\nos.unshare(1)",
    "a write to /usr": "open('/usr/interlock', 'w').write('x')",
    "a write to the folder": "open('interlock', 'w').write('x')",
    "frames": "import sys\nsys._getframe()",
    "the collector": "import gc",
    "a pickle": "import pickle",
    "input": "input()",
}


@pytest.mark.parametrize("how", ESCAPES)
async def test_nothing_outside_can_be_reached(sandbox: Sandbox, how: str) -> None:
    """attack BOX-01"""
    done = await sandbox.run(ESCAPES[how], {}, LONG)
    assert done.error is not None and done.value is None, done
    assert done.error.type not in ("TimeLimit", "WorkerLost")
    assert "root:" not in str(done)


EXHAUSTION = {
    "an infinite loop": (FOREVER, {"TimeLimit"}),
    "a gigabyte": ("'x' * (1 << 30)", {"MemoryLimit"}),
    "a string of 10**10": ("'a' * 10**10", {"MemoryLimit"}),
    "a list of 10**9": ("[0] * 10**9", {"MemoryLimit"}),
    "9**9**9": ("9**9**9", {"MemoryLimit"}),
    "a large power, without its size": ("x = 3\nwhile True: x = x * x", {"MemoryLimit", "TimeLimit"}),
    "recursion": ("def f(): return f()\nf()", {"RecursionError"}),
    "a fork bomb": ("import os\nwhile True: os.fork()", {"AttributeError"}),
    "1e7 prints": ("for i in range(10**7): print(i)", {"OutputLimit", "TimeLimit"}),
    "one large print": ("print('x' * 10**6)", {"OutputLimit"}),
    "a long sleep": ("import time\nwhile True: time.sleep(5)", {"TimeLimit"}),
    "an asynchronous sleep": ("import asyncio\nwhile True: await asyncio.sleep(5)", {"TimeLimit", "RuntimeError"}),
    "an integer as text": ("str(10**100_000)", {"ValueError"}),
    "text as an integer": ("int('9' * 100_000)", {"ValueError"}),
    "deep data": ("a = 1\nfor i in range(200): a = [a]\na", {"NotJson"}),
    "a billion laughs": ("a = []\nfor i in range(60): a = [a, a]\na", {"OutputLimit"}),
    "a long list": ("list(range(200_000))", {"OutputLimit"}),
    "a long value": ("'x' * 10**6", {"OutputLimit"}),
    "an error of fifty megabytes": ("raise ValueError('x' * 50_000_000)", {"MemoryLimit", "ValueError"}),
}


@pytest.mark.parametrize("how", EXHAUSTION)
async def test_what_takes_too_much_is_stopped_and_the_next_calculation_runs(sandbox: Sandbox, how: str) -> None:
    """attack BOX-02"""
    code, expected = EXHAUSTION[how]
    done = await sandbox.run(code, {}, SHORT if "TimeLimit" in expected else LONG)
    assert done.error is not None and done.error.type in expected, done
    assert len(done.output) <= SHORT.output and len(done.error.message) <= 1000
    assert (await sandbox.run("6 * 7", {}, LONG)).value == 42


async def test_a_regular_expression_that_backtracks_is_stopped_too(sandbox: Sandbox) -> None:
    """attack BOX-02"""
    done = await sandbox.run("import re\nre.match('(a+)+$', 'a' * 60 + 'b') is None", {}, SHORT)
    assert done.value is True or (done.error is not None and done.error.type in ("TimeLimit", "RuntimeError", "error", "PatternError"))
    assert (await sandbox.run("6 * 7", {}, LONG)).value == 42


async def test_nothing_is_left_for_the_next_calculation(sandbox: Sandbox) -> None:
    """attack BOX-01: no other user's worker"""
    await sandbox.run("secret = 'of alice'\nimport math\nmath.pi = 3", {})
    done = await sandbox.run("secret", {})
    assert done.error is not None and done.error.type == "NameError"
    assert (await sandbox.run("import math\nmath.pi > 3", {})).value is True


@pytest.mark.parametrize(
    ("code", "kind", "limit"),
    [
        (FOREVER, "TimeLimit", "longer than 1 s"),
        ("'x' * (65 << 20)", "MemoryLimit", "more than 64 MiB"),
        ("print('x' * (65 << 10))", "OutputLimit", "more than 65536 bytes"),
    ],
)
async def test_a_calculation_without_limits_gets_those_that_the_tool_promises(tmp_path: Path, code: str, kind: str, limit: str) -> None:
    """attack BOX-02"""
    sandbox = Sandbox(PLAIN, tmp_path, 1)
    done = await sandbox.run(code, {})
    await sandbox.close()
    assert done.error is not None and done.error.type == kind
    assert limit in done.error.message
    assert "1 second and 64 MiB" in DEFINITION["description"]


async def test_the_gateway_goes_on_while_code_loops(sandbox: Sandbox) -> None:
    """attack BOX-02: the event loop is never held up"""
    running = [asyncio.create_task(sandbox.run(FOREVER, {}, SHORT)) for _ in range(2)]
    turns = 0
    while not all(task.done() for task in running):
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10  # it would be two, were it held up
    assert {(await task).error.type for task in running} == {"TimeLimit"}  # type: ignore[union-attr]  # both have one


def _below(pid: int) -> set[int]:
    """All living processes below one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _told(int(entry.name), "stat")) and fields.rpartition(")")[2].split()[0] != "Z":
            children.setdefault(int(fields.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, waiting = set(), [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.update(below)
        waiting.extend(below)
    return found


def _told(pid: int, what: str) -> str:
    """What the system says of a process; nothing of one that is gone."""
    try:
        return (Path("/proc") / str(pid) / what).read_bytes().decode(errors="replace").strip()
    except OSError:
        return ""


def _runs(pid: int) -> bool:
    """Whether it is an interpreter that has used the processor."""
    fields = _told(pid, "stat").rpartition(")")[2].split()
    return _told(pid, "comm") in ("interpreter", "monty") and bool(fields) and int(fields[11]) > 2


def _lives(pid: int) -> bool:
    return _told(pid, "stat").rpartition(")")[2].split()[:1] not in ([], ["Z"])


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (the system tells of its processes only who asks)
            await asyncio.sleep(0.01)


async def _begun(before: set[int]) -> set[int]:
    """The processes of a worker that runs."""
    await _until(lambda: any(_runs(pid) for pid in _below(os.getpid()) - before))
    return _below(os.getpid()) - before


async def _gone(pids: set[int]) -> None:
    await _until(lambda: not any(_lives(pid) for pid in pids))


async def test_a_stuck_worker_is_killed_and_replaced(sandbox: Sandbox) -> None:
    """attack BOX-02: one that is stopped can't stop itself"""
    before = _below(os.getpid())
    task = asyncio.create_task(sandbox.run(FOREVER, {}, CalculationLimits(seconds=5)))
    workers = await _begun(before)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    done = await task
    assert done.error is not None and done.error.type == "TimeLimit"
    await _gone(workers)
    assert (await sandbox.run("6 * 7", {}, LONG)).value == 42


async def test_no_worker_outlives_its_calculation(sandbox: Sandbox) -> None:
    """attack BOX-01: what code left in a worker is of no use to the next calculation"""
    before = _below(os.getpid())
    assert (await sandbox.run("6 * 7", {}, LONG)).value == 42
    await _gone(_below(os.getpid()) - before)


async def test_a_worker_that_dies_is_told_of_and_replaced(sandbox: Sandbox) -> None:
    before = _below(os.getpid())
    task = asyncio.create_task(sandbox.run(FOREVER, {}, CalculationLimits(seconds=20)))
    workers = await _begun(before)
    for pid in workers:
        with suppress(ProcessLookupError):  # it ended with the one before it
            os.kill(pid, signal.SIGKILL)
    done = await task
    assert done.error is not None and done.error.type == "WorkerLost"
    assert (await sandbox.run("6 * 7", {}, LONG)).value == 42


async def test_the_worker_of_a_calculation_that_nobody_waits_for_ends(sandbox: Sandbox) -> None:
    before = _below(os.getpid())
    task = asyncio.create_task(sandbox.run(FOREVER, {}, CalculationLimits(seconds=30)))
    workers = await _begun(before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _gone(workers)
    assert (await sandbox.run("6 * 7", {}, LONG)).value == 42


async def test_workers_have_nothing_of_the_gateways_environment(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """attack BOX-01: what a worker holds that breaks out of its interpreter"""
    monkeypatch.setenv("INTERLOCK_SECRET", "a-secret-of-the-gateway")
    before = _below(os.getpid())
    task = asyncio.create_task(sandbox.run(FOREVER, {}, CalculationLimits(seconds=20)))
    workers = await _begun(before)
    held = [_told(pid, "environ") for pid in workers if _runs(pid)]
    assert held and not any("a-secret-of-the-gateway" in each for each in held)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_launcher_without_bubblewrap_passes_no_environment_on(tmp_path: Path) -> None:
    """attack BOX-01: tried by `env` in the interpreter's place, since the library that starts the launcher clears it too"""
    program = write_launcher(without_bubblewrap(shutil.which("env")), tmp_path)
    environment = {**os.environ, "INTERLOCK_SECRET": "a-secret-of-the-gateway"}
    done = subprocess.run([program], check=True, env=environment, capture_output=True, text=True)
    assert done.stdout == ""


@pytest.mark.skipif(not FOUND.is_strong, reason=FOUND.weakness or "bubblewrap works")
def test_bubblewrap_leaves_no_network_no_files_and_no_other_processes(tmp_path: Path) -> None:
    """attack BOX-01: the second wall, tried by a shell in the interpreter's place"""
    shell = Path(shutil.which("sh") or "/bin/sh").resolve()
    (tmp_path / "secret").write_text("a secret")
    (command,) = list(isolations._bubblewrap_commands(shutil.which("bwrap") or "", str(shell)))[-1:]
    tries = {
        "read": f"read x < {tmp_path}/secret",
        "passwd": "read x < /etc/passwd",
        "write": "echo x > /usr/lib/interlock",
        "usr": "echo x > /lib/interlock",
        "environment": '[ -n "$PATH_OF_GATEWAY" ]',
        "proc": "read x < /proc/1/status",
        "kill": f"kill -0 {os.getpid()}",
        "tmp": "echo x > /tmp/interlock",
    }
    environment = {**os.environ, "PATH_OF_GATEWAY": "x"}
    for name, script in tries.items():
        assert subprocess.run([*command, "-c", "true"], check=False, env=environment).returncode == 0
        assert subprocess.run([*command, "-c", script], check=False, env=environment, capture_output=True).returncode != 0, name


async def test_what_cannot_be_run_is_refused_before(sandbox: Sandbox) -> None:
    wrong: list[tuple[str, dict[str, Any], CalculationLimits]] = [
        ("x" * (CODE_MAX + 1), {}, SHORT),
        ("'\x00'", {}, SHORT),
        ("'\ud800'", {}, SHORT),
        ("1", {"a b": 1}, SHORT),
        ("1", {"a": "x" * (INPUTS_MAX + 1)}, SHORT),
        ("1", {}, CalculationLimits(seconds=0)),
        ("1", {}, CalculationLimits(seconds=3600)),
    ]
    for code, inputs, limits in wrong:
        with pytest.raises(BadCalculation):
            await sandbox.run(code, inputs, limits)


async def test_as_many_wait_as_may_and_no_more(tmp_path: Path) -> None:
    """attack BOX-02"""
    sandbox = Sandbox(PLAIN, tmp_path, 1)
    waiting = [asyncio.create_task(sandbox.run(FOREVER, {}, CalculationLimits(seconds=30))) for _ in range(1 + WAITING_MAX)]
    await asyncio.sleep(0)
    one_more = asyncio.create_task(sandbox.run("1", {}))
    await asyncio.sleep(0)
    at_once = one_more.done()
    for task in (*waiting, one_more):
        task.cancel()
    *_, refused = await asyncio.gather(*waiting, one_more, return_exceptions=True)
    answer = await sandbox.run("6 * 7", {}, LONG)
    await sandbox.close()
    assert at_once and isinstance(refused, CalculatorBusy)
    assert answer.value == 42


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, {1, 2}, b"x", object(), 1 << 64, "\ud800", {"\ud800": 1}])
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(NotJson):
        to_json_value(value, 1000)


def test_what_is_counted_is_what_is_told() -> None:
    assert to_json_value({"a": (1, [None])}, 100) == {"a": [1, [None]]}
    shared: list[Any] = []
    for _ in range(100):
        shared = [shared, shared]
    with pytest.raises(NotJson):
        to_json_value(shared, 1 << 40)
    assert NODES_MAX < 1 << 20
