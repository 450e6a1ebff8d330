"""Browser clients: which pages may call A2A and MCP, what a preflight is answered, and what a page may read of an answer."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from gateway.server.settings import ServingSettings
from tests.fakes.house import URL, CallbackAgent, House, house

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PAGE = "https://app.example.com"
PREFLIGHT = {"origin": PAGE, "access-control-request-method": "POST", "access-control-request-headers": "authorization, mcp-param-region"}
DOORS = ("/agents/sales", "/agents/sales/message:send", "/mcp", "/mcp/inventory", "/.well-known/agent-card.json")
MESSAGE = {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hi"}]}}


@pytest.fixture
async def open_to_page(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url, server={"public_url": URL, "cors_origins": [PAGE]}) as home:
        await home.agent(CallbackAgent("sales"))
        yield home


async def sent(home: House, **headers: str) -> httpx.Response:
    said = {"authorization": f"Bearer {home.token('alice')}", **headers}
    return await home.http.post("/agents/sales/message:send", json=MESSAGE, headers=said)


def cors_of(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("path", DOORS)
async def test_no_other_origin_is_allowed_by_default(home: House, path: str) -> None:
    answer = await home.http.options(path, headers=PREFLIGHT)
    assert answer.status_code >= 400 and cors_of(answer) == {}


@pytest.mark.parametrize("path", DOORS)
async def test_a_preflight_of_an_allowed_page_is_answered_without_a_token(open_to_page: House, path: str) -> None:
    answer = await open_to_page.http.options(path, headers=PREFLIGHT)
    allowed = cors_of(answer)
    assert (answer.status_code, allowed["access-control-allow-origin"], answer.headers["vary"]) == (200, PAGE, "Origin")
    names = set(allowed["access-control-allow-headers"].split(", "))
    assert {"authorization", "content-type", "a2a-version", "mcp-session-id", "last-event-id", "mcp-param-region"} <= names
    assert "DELETE" in allowed["access-control-allow-methods"] and "access-control-allow-credentials" not in allowed


async def test_an_allowed_page_calls_and_reads_the_answer(open_to_page: House) -> None:
    answer = await sent(open_to_page, origin=PAGE)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, PAGE)
    exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    assert {"a2a-extensions", "mcp-session-id", "www-authenticate", "retry-after", "interlock-trace-id"} <= exposed


async def test_a_page_reads_why_it_was_refused(open_to_page: House) -> None:
    answer = await open_to_page.http.post("/mcp", json={}, headers={"origin": PAGE})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, PAGE)


@pytest.mark.parametrize("origin", ["https://app.example.com.evil.test", "http://app.example.com", "null"])
async def test_pages_of_other_origins_stay_out(open_to_page: House, origin: str) -> None:
    asked = await open_to_page.http.options("/agents/sales", headers={**PREFLIGHT, "origin": origin})
    answer = await sent(open_to_page, origin=origin)
    assert cors_of(asked) == cors_of(answer) == {} and (asked.status_code, answer.status_code) == (403, 403)
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("path", ["/api/agents", "/oauth/consent", "/connect/abc"])
async def test_administration_stays_closed_to_other_origins(open_to_page: House, path: str) -> None:
    asked = await open_to_page.http.options(path, headers=PREFLIGHT)
    answer = await open_to_page.http.get(path, headers={"origin": PAGE, "authorization": f"Bearer {open_to_page.token('admin')}"})
    assert cors_of(asked) == cors_of(answer) == {} and (asked.status_code, answer.status_code) == (403, 403)


async def test_every_page_is_allowed_without_credentials(tmp_path: Path, database_url: str) -> None:
    async with house(tmp_path / "home", database_url, server={"public_url": URL, "cors_origins": ["*"]}) as home:
        await home.agent(CallbackAgent("sales"))
        answer = await sent(home, origin="https://anybody.example")
        asked = await home.http.options("/mcp", headers=PREFLIGHT)
    assert answer.status_code == asked.status_code == 200
    assert answer.headers["access-control-allow-origin"] == asked.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in cors_of(answer) | cors_of(asked)


async def test_a_preflight_for_another_host_is_refused(open_to_page: House) -> None:
    answer = await open_to_page.http.options("/mcp", headers={**PREFLIGHT, "host": "evil.test"})
    assert (answer.status_code, cors_of(answer).get("access-control-allow-origin")) == (421, None)


@pytest.mark.parametrize("given", ["app.example.com", "https://app.example.com/", "https://a@b.example", "null", "", "ftp://x.example"])
def test_what_is_no_origin_is_refused(given: str, database_url: str) -> None:
    with pytest.raises(ValidationError):
        ServingSettings(cors_origins=[given])


async def test_a_page_reads_that_the_gateway_is_stopping(open_to_page: House) -> None:
    drain = open_to_page.gateway.drain
    drain.begun = drain.refuses = True
    preflight = await open_to_page.http.options("/agents/sales", headers=PREFLIGHT)
    answer = await sent(open_to_page, origin=PAGE)
    assert (preflight.status_code, cors_of(preflight)["access-control-allow-origin"]) == (200, PAGE)
    assert (answer.status_code, cors_of(answer).get("access-control-allow-origin"), answer.json()["reason_id"]) == (
        503,
        PAGE,
        "shutting-down",
    )
