"""login, logout and whoami: the session of the command line, against a gateway on loopback."""

import asyncio
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.cli.people import sign_in
from gateway.cli.tokens import sessions
from tests.fakes.house import House
from tests.fakes.sign_in import device_tokens, is_admitted, request_in

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def command(open_home: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a command in a thread, with a configuration folder of its own and without INTERLOCK_TOKEN."""
    for name, value in {"INTERLOCK_URL": open_home.url, "XDG_CONFIG_HOME": str(tmp_path / "config"), "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("INTERLOCK_TOKEN", raising=False)

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))

    return run


def approve(url: str, code: str, user: str) -> None:
    """What a person does in a browser with the code that the command shows."""
    with httpx.Client(base_url=url) as browser:
        page = browser.get("/oauth/device", params={"user_code": code})
        form = {"request": request_in(page), "login": "development", "user": user}
        assert browser.post("/oauth/consent", data=form, headers={"origin": url}).status_code == 200


async def test_a_person_signs_in_by_a_code_and_out_again(
    open_home: House, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(sign_in.screen, "print_text", lambda text: shown.append(str(text)))
    monkeypatch.setattr(sign_in.time, "sleep", lambda _: approve(open_home.url, shown[0].split()[-1], "admin"))
    assert (await command("login")).exit_code == 0
    assert shown[-1] == "signed in as admin"
    path = sessions.sessions_path()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = json.loads(path.read_text())[open_home.url]["access_token"]
    answer = await command("whoami", "--json")
    assert (json.loads(answer.stdout)["subject"], json.loads(answer.stdout)["scope"]) == ("admin", ["*"])
    assert (await command("agent", "list")).exit_code == 0
    assert (await command("logout")).exit_code == 0
    assert json.loads(path.read_text()) == {} and not await is_admitted(open_home, token)
    assert (await command("whoami")).exit_code == 3


async def test_a_command_refreshes_the_session_and_says_when_it_is_over(open_home: House, command: Callable[..., Any]) -> None:
    given = await device_tokens(open_home, "alice")
    old = sessions.StoredSession(given["access_token"], given["refresh_token"], 0.0)
    sessions.write_session(open_home.url, old)
    answer = await command("whoami", "--json")
    assert json.loads(answer.stdout)["subject"] == "alice"
    fresh = sessions.read_session(open_home.url)
    assert fresh is not None and fresh.refresh_token != old.refresh_token and fresh.expires > 0
    sessions.write_session(open_home.url, old)
    over = await command("whoami")
    assert over.exit_code == 3 and "interlock login" in over.stderr and sessions.read_session(open_home.url) is None


async def test_a_token_in_the_environment_comes_first(
    open_home: House, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = await device_tokens(open_home, "alice")
    sessions.write_session(open_home.url, sessions.StoredSession(given["access_token"], given["refresh_token"], 9e9))
    monkeypatch.setenv("INTERLOCK_TOKEN", open_home.token("bob"))
    assert json.loads((await command("whoami", "--json")).stdout)["subject"] == "bob"


async def test_a_device_waits_until_its_person_has_decided(open_home: House) -> None:
    begun = (await open_home.http.post("/oauth/device", data={"client_id": "interlock-cli", "scope": "*"})).json()
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": begun["device_code"]}
    asked = [await open_home.http.post("/oauth/token", data={**form, "client_id": "interlock-cli"}) for _ in range(2)]
    assert [answer.json()["error"] for answer in asked] == ["authorization_pending", "slow_down"]
    stranger = await open_home.http.post("/oauth/token", data={**form, "client_id": "interlock-browser"})
    assert stranger.json()["error"] == "unauthorized_client"
    guess = await open_home.http.get("/oauth/device", params={"user_code": "BBBB-BBBB"})
    assert guess.status_code == 404 and begun["user_code"] not in guess.text
    dynamic = await open_home.http.post("/oauth/register", json={"redirect_uris": ["http://localhost/cb"]})
    refused = await open_home.http.post("/oauth/device", data={"client_id": dynamic.json()["client_id"]})
    assert refused.json()["error"] == "unauthorized_client"
