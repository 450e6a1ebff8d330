"""Commands of the configuration file: what their environment has, and what operators see of them."""

import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.server.composition.upstreams import _build_commands
from gateway.server.settings import BadSettings, Settings
from gateway.timeouts import DEFAULT_TIMEOUTS
from tests.fakes.house import open_house
from tests.fakes.reception import Reception
from tests.fakes.waiting import until

WRITES = "import sys; print('no key in sight', file=sys.stderr, flush=True); sys.exit(3)"


def settings(home: Path, **more: Any) -> Settings:
    return Settings(home=home, servers=[{"name": "desk", "command": "desk-server", **more}])


def test_a_command_gets_what_is_listed_and_what_programs_are_found_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DESK_KEY": "k-123", "PATH": "/bin", "HOME": "/desks", "INTERLOCK_SECRET": "ours"}.items():
        monkeypatch.setenv(name, value)
    commands: Any = _build_commands(settings(tmp_path, env={"KEY": "env:DESK_KEY", "MODE": "fast", "HOME": "/desk"}), DEFAULT_TIMEOUTS)
    environment = commands._commands["desk"].env
    assert {name: environment[name] for name in ("KEY", "MODE", "PATH", "HOME")} == {
        "KEY": "k-123",
        "MODE": "fast",
        "PATH": "/bin",
        "HOME": "/desk",
    }
    assert not environment.keys() & {"INTERLOCK_SECRET", "DESK_KEY"}
    assert "k-123" in commands._commands["desk"].secrets


def test_a_variable_that_is_not_set_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"servers\.desk\.env\.KEY: the environment variable DESK_KEY is not set"):
        _build_commands(settings(tmp_path, env={"KEY": "env:DESK_KEY"}), DEFAULT_TIMEOUTS)


def test_the_era_of_a_command_is_the_operators_to_say(tmp_path: Path) -> None:
    said: Any = _build_commands(settings(tmp_path, upstream={"era": "initialize"}), DEFAULT_TIMEOUTS)
    assert said._commands["desk"].initialize


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_operators_alone_see_what_a_command_wrote_to_its_standard_error(tmp_path: Path, database_url: str) -> None:
    command = {"name": "desk", "command": sys.executable, "args": ["-c", WRITES]}
    async with open_house(tmp_path / "home", database_url, servers=[command]) as home:
        desk = Reception(home)
        await until(lambda: "desk" in [entry.name for entry in home.gateway.registry.list("default")], every=0.05)
        assert (await desk.ask("GET", "/api/servers/desk")).json()["stderr"][-1] == "no key in sight"
        assert "stderr" not in (await desk.ask("GET", "/api/servers/desk", "mel")).json()
