"""One guard for every kind of request that leaves: what is inside is refused when the connection is made, whatever was saved before,
and no proxy of the environment comes between."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.openapi.document import read_api
from registry.cards.card import Family, McpTool, RegistrationStatus
from registry.rows import Candidate
from tests.fakes.house import House, house
from tests.fakes.issuer import FakeIssuer
from tests.fakes.reception import Reception
from tests.fakes.upstream import Upstream, answer

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ALLOWED = "127.0.0.3"  # as a host of the internet would be
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
STOCK = {"get": {"operationId": "stock", "responses": {}}}
DOCUMENT = {"openapi": "3.1.0", "info": {"title": "x", "version": "1"}, "paths": {"/stock": STOCK}}
Ask = Callable[[House, str], Awaitable[bool]]


async def card(home: House, url: str) -> bool:
    return (await Reception(home).post("/api/agents", url=url, name="a")).status_code >= 400


async def server(home: House, url: str) -> bool:
    return (await Reception(home).post("/api/servers", url=f"{url}/mcp", name="s")).status_code >= 400


async def document(home: House, url: str) -> bool:
    return (await Reception(home).post("/api/servers", openapi=f"{url}/openapi.json", name="s")).status_code >= 400


async def message(home: House, url: str) -> bool:
    await home.registered("sales", url)
    sent = await home.send(home.token("alice"), "sales", "hi")
    return bool(sent["result"]["task"]["status"]["state"] == "TASK_STATE_FAILED")


async def tool(home: House, url: str) -> bool:
    await home.server("inventory", "check", url=url)
    return "error" in (await home.call(home.token("alice"), "/mcp/inventory", "check", {})).json()


async def operation(home: House, url: str) -> bool:
    tools = tuple(McpTool(each["name"], each) for each in read_api(DOCUMENT, "").tools)
    given: dict[str, Any] = {"family": Family.SERVER, "kind": "openapi", "owner": "operator", "status": RegistrationStatus.ACTIVE}
    await home.gateway.registry.add(Candidate(tenant="default", name="inventory", url=url, tools=tools, facts={"era": "openapi"}, **given))
    return "error" in (await home.call(home.token("alice"), "/mcp/inventory", "stock", {})).json()


async def keys(home: House, url: str) -> bool:
    """The key set of an issuer whose address leads inside."""
    token = FakeIssuer("https://login.example", home.url).mint()
    return (await home.http.get("/api/tasks", headers={"authorization": f"Bearer {token}"})).status_code == 401


KINDS: dict[str, Ask] = {each.__name__: each for each in (card, server, document, message, tool, operation, keys)}


@pytest.fixture
async def canary() -> AsyncIterator[Upstream]:
    async def said(_head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(answer(b"{}"))

    async with Upstream(said) as listening:
        yield listening


def settings(jwks: str) -> dict[str, Any]:
    issuer = {"issuer": "https://login.example", "jwks_url": jwks}
    return {"egress": {"allow": [f"{ALLOWED}/32"]}, "identity": {"development": "on", "issuers": [issuer]}}


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_inside_is_reached_by_any_kind_of_request(tmp_path: Path, database_url: str, canary: Upstream, kind: str) -> None:
    """attack SSR-01: saved before the guard was there, or by a hand in the database; refused when it is connected to"""
    async with house(tmp_path / "home", database_url, **settings(f"{canary.url}/jwks")) as home:
        assert await KINDS[kind](home, canary.url), kind
    assert canary.connections == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_no_proxy_of_the_environment_is_asked(
    tmp_path: Path, database_url: str, canary: Upstream, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """attack SSR-01: a proxy would resolve and connect where no guard looks"""
    for name in PROXIES:
        monkeypatch.setenv(name, canary.url)

    async def said(_head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(answer(b"{}"))

    async with Upstream(said, ALLOWED) as target, house(tmp_path / "home", database_url, **settings(f"{target.url}/jwks")) as home:
        await KINDS[kind](home, target.url)
        assert target.connections > 0, kind
    assert canary.connections == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_no_redirect_is_followed_by_any_kind_of_request(tmp_path: Path, database_url: str, canary: Upstream, kind: str) -> None:
    """attack SSR-03"""

    async def moved(_head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(answer(b"", "307 Temporary Redirect", f"Location: {canary.url}/"))

    async with Upstream(moved, ALLOWED) as target, house(tmp_path / "home", database_url, **settings(f"{target.url}/jwks")) as home:
        await KINDS[kind](home, target.url)
        assert target.connections > 0, kind
    assert canary.connections == 0
