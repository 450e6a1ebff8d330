"""The token of a scraper: it opens /metrics, as long as the operator leaves it where it is, and nothing else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.cli.local.checks.configuration import find_problems
from gateway.ingress.http.scrape_token import READ_SECONDS, ScrapeToken
from gateway.server.settings import BadSettings
from gateway.server.settings_sources import load_settings
from tests.fakes.clock import Clock
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
    assert [await scraped(home, home.token(user)) for user in ("admin", "alice")] == [200, 403]
    refused = await home.http.get("/metrics", headers=shown(home.token("alice")))
    assert refused.json()["reason_id"] == "denied" and "audit:read" in refused.json()["detail"]
    assert "www-authenticate" not in refused.headers


async def test_the_token_opens_nothing_else(home: House) -> None:
    await home.server("inventory", "check")
    routes = ("/api/agents", "/api/decisions", "/api/tasks", "/mcp", "/ard/search")
    assert {(await home.http.get(path, headers=shown(TOKEN))).status_code for path in routes} <= {401, 404, 405}
    called = await home.rpc("/mcp", TOKEN, "tools/list", {"_meta": CAPABILITIES})
    sent = await home.rpc("/agents/sales", TOKEN, "SendMessage", {}, **{"A2A-Version": "1.0"})
    assert (called.status_code, sent.status_code) == (401, 401)


class TokenFile:
    """A file with the token, read by a gateway whose clock the test moves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reads = 0
        self.clock = Clock()
        self.scraper = ScrapeToken(self._read, self.clock)

    def _read(self) -> str:
        self.reads += 1
        return self.path.read_text()

    def opens(self, token: str) -> bool:
        return self.scraper.is_shown({"type": "http", "headers": [(b"authorization", f"Bearer {token}".encode())]})

    def opens_a_second_later(self, token: str) -> bool:
        self.clock.now += READ_SECONDS
        return self.opens(token)


def test_the_operator_may_replace_the_token_while_the_gateway_runs(tmp_path: Path) -> None:
    place = TokenFile(tmp_path / "token")
    place.path.write_text(TOKEN)
    assert place.opens(TOKEN)
    place.path.write_text("a-new-token-of-the-operator")
    assert [place.opens_a_second_later(token) for token in (TOKEN, "a-new-token-of-the-operator")] == [False, True]
    place.path.write_text("short")
    assert not place.opens_a_second_later("short")
    place.path.unlink()
    assert [place.opens_a_second_later(token) for token in ("short", "", TOKEN)] == [False] * 3


def test_requests_without_a_credential_cost_one_read_a_second(tmp_path: Path) -> None:
    place = TokenFile(tmp_path / "token")
    place.path.write_text(TOKEN)
    assert not any(place.opens(f"guess-{number}") for number in range(1000))
    assert place.reads == 1
    place.clock.now += 0.9
    assert place.opens(TOKEN) and place.reads == 1
    assert place.opens_a_second_later(TOKEN) and place.reads == 2


def test_a_token_that_is_away_is_one_line_in_the_log_and_one_when_it_is_back(tmp_path: Path) -> None:
    place = TokenFile(tmp_path / "token")
    with capture_logs() as lines:
        for _ in range(30):
            assert not any(place.opens(f"guess-{number}") for number in range(10))
            place.clock.now += READ_SECONDS
        place.path.write_text(TOKEN)
        assert place.opens(TOKEN)
    assert [line["event"] for line in lines] == ["metrics_token_missing", "metrics_token_read_again"]
    assert place.reads == 31


async def test_people_get_in_while_the_token_is_away(home: House, tmp_path: Path) -> None:
    (tmp_path / "token").unlink()
    assert [await scraped(home, TOKEN), await scraped(home, home.token("admin"))] == [401, 200]


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
