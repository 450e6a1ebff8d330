"""The token of a scraper: it opens /metrics, as long as the operator leaves it where it is, and nothing else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.cli.local.configuration_check import find_problems
from gateway.server.settings import BadSettings
from gateway.server.settings_sources import load_settings
from tests.fakes.house import CAPABILITIES, House, house

TOKEN = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    async with house(tmp_path / "home", database_url, telemetry={"metrics_token": f"file:{tmp_path / 'token'}"}) as built:
        yield built


def shown(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def scraped(home: House, token: str, host: str = "") -> int:
    return (await home.http.get("/metrics", headers=shown(token) | ({"host": host} if host else {}))).status_code


async def test_the_token_opens_figures_under_any_host_name(home: House) -> None:
    assert [await scraped(home, TOKEN), await scraped(home, TOKEN, "10.0.0.7:8080")] == [200, 200]
    wrong = (TOKEN[:-1], f"{TOKEN}0", "", "é" * 32, TOKEN.upper())
    refused = [await home.http.get("/metrics", headers={"authorization": f"Bearer {token}".encode()}) for token in wrong]
    assert {answer.status_code for answer in refused} == {401}
    assert (await home.http.get("/metrics", headers={"authorization": f"Basic {TOKEN}"})).status_code == 401


async def test_people_who_may_read_the_audit_need_no_scrape_token(home: House) -> None:
    assert [await scraped(home, home.token(user)) for user in ("admin", "alice")] == [200, 401]


async def test_the_token_opens_nothing_else(home: House) -> None:
    await home.server("inventory", "check")
    routes = ("/api/agents", "/api/decisions", "/api/tasks", "/mcp", "/ard/search")
    assert {(await home.http.get(path, headers=shown(TOKEN))).status_code for path in routes} <= {401, 404, 405}
    called = await home.rpc("/mcp", TOKEN, "tools/list", {"_meta": CAPABILITIES})
    sent = await home.rpc("/agents/sales", TOKEN, "SendMessage", {}, **{"A2A-Version": "1.0"})
    assert (called.status_code, sent.status_code) == (401, 401)


async def test_the_operator_may_replace_the_token_while_the_gateway_runs(home: House, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-new-token-of-the-operator")
    assert [await scraped(home, TOKEN), await scraped(home, "a-new-token-of-the-operator")] == [401, 200]
    (tmp_path / "token").write_text("short")
    assert await scraped(home, "short") == 401
    (tmp_path / "token").unlink()
    assert [await scraped(home, "short"), await scraped(home, ""), await scraped(home, home.token("admin"))] == [401, 401, 200]


async def test_without_the_setting_no_token_opens_figures(tmp_path: Path, database_url: str) -> None:
    async with house(tmp_path / "home", database_url) as home:
        assert [await scraped(home, TOKEN), await scraped(home, home.token("admin"))] == [401, 200]


def test_a_secret_in_the_settings_themselves_is_refused_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadSettings, match="write env:NAME or file:PATH") as refused:
        load_settings(None, telemetry={"metrics_token": TOKEN})
    assert TOKEN not in str(refused.value)


def test_a_token_that_is_absent_or_short_is_found_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRAPER_SHORT", "short")
    monkeypatch.setenv("SCRAPER_FINE", TOKEN)
    said = {}
    for place in ("env:SCRAPER_ABSENT", f"file:{tmp_path / 'none'}", "env:SCRAPER_SHORT", "env:SCRAPER_FINE"):
        chosen = load_settings(None, telemetry={"metrics_token": place})
        said[place[:16]] = [trouble.problem for trouble in find_problems(chosen, {}) if trouble.is_fatal]
    assert [len(problems) for problems in said.values()] == [1, 1, 1, 0]
    assert said["env:SCRAPER_SHOR"] == ["the token has fewer than 16 characters"]
