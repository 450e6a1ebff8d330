"""The settings of connections reach the sockets, and no process takes more connections than it may open files."""

from pathlib import Path
from typing import Any

import pytest

from gateway.calls.limits import open_files
from gateway.calls.limits.open_files import OpenFileBudget
from gateway.server.app import build_application
from gateway.server.composition.capacity import client_limits
from gateway.server.composition.process import Gateway
from gateway.server.settings import Settings
from gateway.server.sockets.client_limits import LOOK_MAX, STATE, ClientLimits
from tests.fakes.timeouts import LONG_TIMEOUTS

SERVER = {
    "max_headers": 2048,
    "max_connections": 7,
    "header_timeout": 1,
    "body_timeout": 2,
    "idle_timeout": 3,
    "send_timeout": 4,
}
GIVEN = ClientLimits(header_bytes=2048, header_seconds=1, body_seconds=2, idle_seconds=3, send_seconds=4, connections=7)


def test_the_defaults_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "raise_limit", lambda: OpenFileBudget(open_files.WANTED_LIMIT))
    assert client_limits(Settings()) == ClientLimits()


def test_few_open_files_allow_few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "raise_limit", lambda: OpenFileBudget(1024))
    assert client_limits(Settings()).connections == OpenFileBudget(1024).connections == 672


def test_a_connection_is_checked_several_times_within_its_shortest_limit() -> None:
    assert GIVEN.look_seconds == 0.25
    assert ClientLimits(header_seconds=1e3, body_seconds=1e3, idle_seconds=1e3, send_seconds=1e3).look_seconds == LOOK_MAX


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_settings_reach_the_sockets_and_the_figures(tmp_path: Path, database_url: str) -> None:
    gateway = Gateway(Settings(home=tmp_path, database={"url": database_url}, server=SERVER, sandbox="off"), timeouts=LONG_TIMEOUTS)
    state: dict[str, Any] = {}
    told: list[str] = []
    turns = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, str]:
        return {"type": next(turns)}

    async def send(message: Any) -> None:
        told.append(message["type"])

    await build_application(gateway)({"type": "lifespan", "state": state}, receive, send)
    assert told == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert state[STATE].limits == GIVEN
    state[STATE].count_drop("idle")
    figures = gateway.metrics.render()
    assert b'interlock_connections_dropped_total{reason="idle"} 1.0' in figures and b"interlock_connections 0.0" in figures
