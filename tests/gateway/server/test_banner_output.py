"""What whoever starts the gateway is told."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from gateway.server.banner import banner_lines, print_banner
from registry.cards.card import RegistrationStatus
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.ports import free_port
from tests.house.source import ROOT

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def told(home: House) -> str:
    return "\n".join(banner_lines(home.gateway))


async def test_an_empty_gateway_says_where_it_is_and_how_to_register_the_first_agent(home: House) -> None:
    said = told(home)
    assert f"serves {home.url}" in said
    assert f"{home.url}/docs" in said
    assert "agents   none yet" in said
    assert f"export INTERLOCK_URL={home.url}" in said
    assert f"export INTERLOCK_HOME={home.gateway.settings.home}" in said
    assert "interlock token --user admin" in said
    assert "interlock agent add http" in said


async def test_outside_of_development_no_agent_of_loopback_is_suggested(tmp_path: Path, database_url: str) -> None:
    issuer = {"issuer": "https://login.example.com", "jwks_url": "https://login.example.com/jwks.json"}
    identity, server = {"development": "off", "issuers": [issuer]}, {"public_url": "https://agents.example.com"}
    async with house(tmp_path / "home", database_url, identity=identity, server=server, sign_in={"development": "off"}) as home:
        said = told(home)
    assert "interlock agent add https://agent.example.com" in said and "127.0.0.1:7001" not in said


async def test_what_is_registered_is_named_and_the_next_step_is_to_send_something(home: House) -> None:
    await home.agent(CallbackAgent("support"))
    await home.server("inventory", "check")
    said = told(home)
    assert "agents   support\n" in said
    assert "servers  inventory\n" in said
    assert 'interlock send support "hello"' in said
    assert "--user alice" in said


async def test_what_waits_for_approval_comes_first(home: House) -> None:
    await home.agent(CallbackAgent("support"))
    await home.server("inventory", "check", status=RegistrationStatus.PENDING)
    said = told(home)
    assert "servers  inventory (pending)" in said
    assert "interlock server show inventory" in said
    assert "--user admin" in said


async def test_a_program_gets_the_same_as_a_line_of_the_log(tmp_path: Path, database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with house(tmp_path / "home", database_url) as home:
        await home.agent(CallbackAgent("support"))
        print_banner(home.gateway)
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines() if '"serving"' in line]
    assert (line["event"], line["url"], line["agent"], line["server"]) == ("serving", home.url, ["support"], [])
    assert line["next"][-1] == 'interlock send support "hello"'


async def test_the_first_start_says_once_what_it_made_and_where_and_no_secret(
    tmp_path: Path, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "home"
    places = {"signing keys": folder / "keys", "vault keys": folder / "keys" / "vault", "audit heads": folder / "audit.heads"}
    places["database"] = folder / "interlock.db"
    async with house(folder, f"sqlite:///{folder / 'interlock.db'}") as first:
        said = told(first)
        print_banner(first.gateway)
    for what, path in places.items():
        assert f"{what}: {path}\n" in said
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines() if '"serving"' in line]
    assert line["made"] == {what: str(path) for what, path in places.items()}
    for file in (folder / "keys").rglob("*.json"):
        secret = json.loads(file.read_text())
        assert not any(isinstance(one, str) and len(one) > 30 and one in said for one in secret.values()), file
    async with house(folder, f"sqlite:///{folder / 'interlock.db'}") as second:
        assert second.gateway.created_files == {} and "made" not in told(second)


def test_the_line_comes_when_the_gateway_can_be_reached(tmp_path: Path, database_url: str) -> None:
    port = free_port()
    command = [sys.executable, "-m", "gateway", "serve", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "INTERLOCK_HOME": str(tmp_path / "home")}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if '"serving"' in line)
            url = json.loads(line)["url"]
            assert url.endswith(f":{port}")
            with urllib.request.urlopen(f"{url}/livez", timeout=60) as answer:
                assert answer.status == 200
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=300)


async def test_with_sign_in_of_a_provider_the_next_step_is_to_log_in(tmp_path: Path, database_url: str) -> None:
    issuer = {"issuer": "https://login.example", "jwks_url": "https://login.example/jwks"}
    provider = {"issuer": "https://login.example", "client_id": "interlock"}
    given = {"identity": {"development": "off", "issuers": [issuer]}, "sign_in": {"development": "off", "providers": {"corp": provider}}}
    async with house(tmp_path / "home", database_url, **given) as home:
        said = told(home)
    assert "interlock login" in said and "INTERLOCK_HOME" not in said and "interlock token" not in said
