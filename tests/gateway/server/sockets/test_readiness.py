"""What systemd hears of a gateway that serves, by a real socket of datagrams."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.server.sockets.readiness import VARIABLE, report_ready
from tests.fakes.ports import free_port
from tests.house.source import ROOT

PLACES = {"file": "notify", "abstract": f"@interlock-{secrets.token_hex(8)}"}


@pytest.fixture(params=PLACES)
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The address in the variable, and the socket of the service manager."""
    place = PLACES[request.param]
    name = place if place.startswith("@") else str(tmp_path / place)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        listener.settimeout(60)
        yield name, listener


def test_readiness_is_reported_once_and_the_variable_is_not_passed_on(manager: tuple[str, socket.socket]) -> None:
    name, listener = manager
    environment = {VARIABLE: name, "OTHER": "x"}
    report_ready("serves https://gw.example\nREADY=0", environment)
    assert listener.recv(1000) == b"READY=1\nSTATUS=serves https://gw.example\n" and environment == {"OTHER": "x"}
    report_ready("again", environment)
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.recv(1000)


def test_a_manager_that_does_not_listen_is_logged_and_stops_nothing(tmp_path: Path) -> None:
    with capture_logs() as logged:
        report_ready("serves", {VARIABLE: str(tmp_path / "nobody")})
    assert [each["event"] for each in logged] == ["readiness_not_reported"]


@pytest.mark.parametrize("workers", [1, pytest.param(2, id="workers")])
def test_a_gateway_reports_when_it_answers_and_not_before(workers: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    port, place = free_port(), tmp_path / "notify"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "INTERLOCK_HOME": str(tmp_path / "home"), VARIABLE: str(place)}
    if workers > 1:
        environment["INTERLOCK_DATABASE__URL"] = request.getfixturevalue("postgres_url")
    command = [sys.executable, "-P", "-m", "gateway", "serve", "--port", str(port), "--workers", str(workers)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(place))
        listener.settimeout(120)
        with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL) as running:
            try:
                assert listener.recv(1000).startswith(b"READY=1\nSTATUS=serves http://127.0.0.1:")
                with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                    client.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                    answer = b"".join(iter(lambda: client.recv(65536), b""))
                assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == "ready"
            finally:
                running.send_signal(signal.SIGINT)
                running.wait(60)
