"""Figures of several worker processes: any of them tells the sums, and a worker that dies takes nothing away."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import IO

import httpx
import pytest

from gateway.telemetry.worker_figures import FOLDER, VARIABLE, FiguresFolder, WorkerFigures
from tests.fakes.ports import free_port
from tests.house.source import ROOT

WORKER = """
import os, sys
from pathlib import Path
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.worker_figures import WorkerFigures

metrics = Metrics(None, WorkerFigures(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])))
metrics.add_gauge("streams", "Open streams.", lambda: 2)
metrics.add_gauge("kills", "Stopped.", lambda: 3, "livemax")
metrics.write_gauges()
for line in sys.stdin:
    if line.strip() == "call":
        metrics.count_call("mcp", "tools/call", "ok", 0.004)
        metrics.upstream(("agent", "default", "sales"), "invoke_agent", "ok", 0.004)
    else:
        print(metrics.render().decode().replace("\\n", "|"))
        continue
    print("done")
"""


class Worker:
    """A process that counts as a worker does, on demand."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, VARIABLE: str(folder)}
        command = [sys.executable, "-uc", WORKER]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def call(self, times: int = 1) -> None:
        assert [self._ask("call") for _ in range(times)] == ["done"] * times

    def figures(self) -> dict[str, float]:
        lines = [line for line in self._ask("render").split("|") if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            _close(pipe)


def _close(pipe: IO[str] | None) -> None:
    if pipe is not None:
        pipe.close()


CALLS = 'interlock_calls_total{door="mcp",method="tools/call",outcome="ok"}'
SECONDS = 'interlock_call_seconds_count{door="mcp",method="tools/call",result="ok"}'
UPSTREAM = 'interlock_upstream_calls_total{family="agent",method="invoke_agent",name="sales",outcome="ok",tenant="default"}'


def test_any_worker_tells_the_sums_of_all_and_a_dead_one_takes_nothing_away(tmp_path: Path) -> None:
    folder = FiguresFolder(tmp_path).path
    workers = [Worker(folder), Worker(folder)]
    try:
        for worker, times in zip(workers, (2, 3), strict=True):
            worker.call(times)
        for worker in workers:
            told = worker.figures()
            assert (told[CALLS], told[SECONDS], told[UPSTREAM]) == (5, 5, 5)
            assert (told["interlock_streams"], told["interlock_kills"]) == (4, 3)
        workers.pop().kill()
        told = workers[0].figures()
        assert (told[CALLS], told["interlock_streams"]) == (5, 2)
        files = len(list(folder.iterdir()))
        workers.append(Worker(folder))
        workers[1].call()
        told = workers[1].figures()
        assert (told[CALLS], told[UPSTREAM], told["interlock_streams"]) == (6, 6, 4)
        assert len(list(folder.iterdir())) == files + 2  # its gauges of two modes are back, and it counts in the files of the dead one
    finally:
        for worker in workers:
            worker.kill()


def test_folders_of_gateways_that_have_ended_are_removed(tmp_path: Path) -> None:
    running, ended = FiguresFolder(tmp_path), FiguresFolder(tmp_path)
    ended._lock.close()  # type: ignore[union-attr]  # as the end of its process does
    (ended.path / "counter_0.db").write_bytes(b"")
    other = FiguresFolder(tmp_path)
    assert running.path.exists() and not ended.path.exists() and other.path.exists()
    other.remove()
    assert not other.path.exists()


def test_a_worker_whose_folder_is_gone_ends_at_once(tmp_path: Path) -> None:
    folder = FiguresFolder(tmp_path)
    folder.remove()
    with pytest.raises(FileNotFoundError):
        WorkerFigures(folder.path)


def test_folders_are_made_and_cleaned_by_one_gateway_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, refused = tempfile.mkdtemp, []

    def make_while_another_starts(prefix: str, dir: Path) -> str:
        handle = os.open(dir, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refused.append(dir)
        finally:
            os.close(handle)
        return make(prefix=prefix, dir=dir)

    monkeypatch.setattr(tempfile, "mkdtemp", make_while_another_starts)
    FiguresFolder(tmp_path)
    FiguresFolder(tmp_path)  # the first one no longer holds the lock
    assert refused == [tmp_path / FOLDER] * 2


@pytest.mark.parametrize("name", ["metrics", "metrics/gateway-"])
def test_the_folder_is_closed_to_others(tmp_path: Path, name: str) -> None:
    FiguresFolder(tmp_path)
    (found,) = tmp_path.glob(f"{name}*")
    assert found.stat().st_mode & 0o077 == 0


def test_a_gateway_of_two_workers_tells_the_sum_and_leaves_no_files(tmp_path: Path, postgres_url: str) -> None:
    port, token, home = free_port(), "a-token-for-the-scraper", tmp_path / "home"
    command = [sys.executable, "-m", "gateway", "serve", "--port", str(port), "--workers", "2"]
    settings = {
        "PYTHONPATH": str(ROOT),
        "SCRAPER": token,
        "INTERLOCK_HOME": str(home),
        "INTERLOCK_DATABASE__URL": postgres_url,
        "INTERLOCK_TELEMETRY__METRICS_TOKEN": "env:SCRAPER",
    }
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert len(list(islice((line for line in process.stderr if '"serving"' in line), 2))) == 2
            url = f"http://127.0.0.1:{port}"
            assert [httpx.get(f"{url}/api/agents").status_code for _ in range(40)] == [401] * 40
            told = {_refused(httpx.get(f"{url}/metrics", headers={"authorization": f"Bearer {token}"}).text) for _ in range(20)}
            assert told == {40.0}
            assert len(list(home.glob("metrics/*/histogram_*.db"))) == 2
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=300)
    assert list(home.glob("metrics/*")) == []


def _refused(figures: str) -> float:
    """How many requests to /api were refused."""
    series = 'interlock_calls_total{door="admin",method="GET",outcome="'
    return sum(float(line.rpartition(" ")[2]) for line in figures.splitlines() if line.startswith(series))
