"""Several workers that can't start end with the exit code that one process has; a worker that dies later is replaced."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway.storage.database import engine_for
from tests.fakes.ports import free_port

ROOT = Path(__file__).parents[3]


@contextmanager
def workers(folder: Path, url: str, settings: dict[str, Any]) -> Iterator["subprocess.Popen[str]"]:
    """A gateway of two workers, until the end of the block."""
    (folder / "interlock.yaml").write_text(json.dumps(settings))
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "INTERLOCK_HOME": str(folder / "home"),
        "INTERLOCK_DATABASE__URL": url,
    }
    command = [sys.executable, "-P", "-m", "gateway", "serve", "--port", str(free_port()), "--workers", "2"]
    running = subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        yield running
    finally:
        running.terminate()
        running.communicate(timeout=60)


def broken_policy(folder: Path, _url: str) -> dict[str, Any]:
    (folder / "policies").mkdir()
    (folder / "policies" / "own.cedar").write_text("permit(prin")
    return {"policies": str(folder / "policies")}


def missing_key(_folder: Path, _url: str) -> dict[str, Any]:
    return {"vault": {"keys": ["env:NOT_SET"]}}


def missing_table(_folder: Path, url: str) -> dict[str, Any]:
    engine = engine_for(url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE epochs"))
    engine.dispose()
    return {}


@pytest.mark.parametrize(
    ("prepare", "code", "problem"),
    [(broken_policy, 78, "own.cedar:1"), (missing_key, 78, "NOT_SET is empty"), (missing_table, 1, "epochs")],
)
def test_workers_that_can_not_start_end_the_gateway(
    prepare: Callable[[Path, str], dict[str, Any]], code: int, problem: str, tmp_path: Path, postgres_url: str
) -> None:
    with workers(tmp_path, postgres_url, prepare(tmp_path, postgres_url)) as running:
        _, said = running.communicate(timeout=100)
    assert running.returncode == code
    assert problem in said and "the gateway did not start" in said


def test_a_worker_that_dies_while_others_serve_is_replaced(tmp_path: Path, postgres_url: str) -> None:
    with workers(tmp_path, postgres_url, {}) as running:
        begun = await_serving(running, 2)
        killed, other = sorted(worker_pids(running.pid))
        assert sorted(serving_pids(begun)) == [killed, other]
        os.kill(killed, signal.SIGKILL)
        replaced = await_serving(running, 1)
        running.send_signal(signal.SIGTERM)
        _, rest = running.communicate(timeout=60)
    assert running.returncode == 0
    (ended,) = (line for line in replaced if line["event"] == "worker_ended")
    assert (ended["level"], ended["pid"], ended["signal"]) == ("error", killed, "SIGKILL")
    ending = [json.loads(line) for line in rest.splitlines()]
    assert not [line for line in ending if line["event"] == "worker_ended"]  # who ends at a signal to the gateway is no news
    assert {line["pid"] for line in ending if line["event"] in ("drain_begun", "audit_head")} == {other, *serving_pids(replaced)}


def serving_pids(lines: list[dict[str, Any]]) -> list[int]:
    return [line["pid"] for line in lines if line["event"] == "serving"]


def await_serving(running: "subprocess.Popen[str]", count: int) -> list[dict[str, Any]]:
    """Returns the lines of the log until so many workers serve. A gateway that is silent for too long is killed."""
    lines: list[dict[str, Any]] = []
    assert running.stderr is not None
    bound = threading.Timer(100, running.kill)
    bound.start()
    while count:
        line = running.stderr.readline()
        assert line, "the gateway ended"
        lines.append(json.loads(line))
        count -= lines[-1]["event"] == "serving"
    bound.cancel()
    return lines


def worker_pids(parent: int) -> list[int]:
    children = map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_sigint_skips_the_delay_of_every_worker(tmp_path: Path, postgres_url: str) -> None:
    with workers(tmp_path, postgres_url, {"server": {"drain_delay": 600}}) as running:
        await_serving(running, 2)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    assert running.returncode == 0
