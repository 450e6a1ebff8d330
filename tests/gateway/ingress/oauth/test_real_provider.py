"""People of a real identity provider: they log in there, and are who they are here; its keys change, and nobody notices but forgers."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from policies.tokens.verifier import TokenRefused
from tests.fakes.a2a_agents import serving
from tests.fakes.house import CAPABILITIES, URL, CallbackAgent, House, house
from tests.fakes.real_provider import RealProvider, real_provider

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def provider() -> Iterator[RealProvider]:
    with real_provider(URL) as started:
        yield started


@pytest.fixture
async def home(tmp_path: Path, database_url: str, provider: RealProvider) -> AsyncIterator[House]:
    issuer = {"issuer": provider.issuer, "jwks_url": f"{provider.issuer}/jwks", "tenant_claim": "tid", "tenants": ["acme", "evil"]}
    settings: dict[str, Any] = {"identity": {"development": "off", "issuers": [issuer]}, "egress": {"allow": ["127.0.0.0/8"]}}
    async with house(tmp_path / "home", database_url, **settings) as built:
        url = await built.stack.enter_async_context(serving(CallbackAgent("sales")))
        await built.registered("sales", url, tenant="acme")
        yield built


async def tools(home: House, token: str) -> tuple[int, list[str]]:
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
    answer = await home.rpc("/mcp", token, "tools/list", {"_meta": CAPABILITIES}, **headers)
    return answer.status_code, [tool["name"] for tool in answer.json().get("result", {}).get("tools", [])]


async def test_who_logs_in_there_is_admitted_here(home: House, provider: RealProvider) -> None:
    token = await provider.token("alice")
    sent = await home.send(token, "sales", "hello")
    assert sent["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    status, names = await tools(home, token)
    assert status == 200 and "sales" in names
    seen = await home.http.get("/api/tasks", headers={"authorization": f"Bearer {token}"})
    assert [task["id"] for task in seen.json()["items"]] == [sent["result"]["task"]["id"]]
    assert seen.json()["items"][0]["owner"] == f"acme|{provider.issuer}|alice"


# attack TOK-15
@pytest.mark.parametrize("typ", ["any", "at+jwt"])
async def test_its_id_token_opens_nothing_though_it_names_us(tmp_path: Path, database_url: str, provider: RealProvider, typ: str) -> None:
    named_as_the_client = {"audience": "console", "typ": typ}
    issuer = {"issuer": provider.issuer, "jwks_url": f"{provider.issuer}/jwks", **named_as_the_client}
    settings: dict[str, Any] = {"identity": {"development": "off", "issuers": [issuer]}, "egress": {"allow": ["127.0.0.0/8"]}}
    async with house(tmp_path / "home", database_url, **settings) as home:
        given = await provider.tokens("alice")
        assert (await tools(home, given["id_token"]))[0] == 401
        with pytest.raises(TokenRefused) as refused:
            await home.gateway.rulings.token_verifier.verify(given["id_token"], {home.url})
        assert refused.value.reason == ("id-token" if typ == "any" else "type")
        with pytest.raises(TokenRefused) as refused:
            await home.gateway.rulings.token_verifier.verify(given["access_token"], {home.url})
        assert refused.value.reason == "audience"  # it is read further, since it is one for an API


async def test_people_of_another_tenant_see_nothing_of_it(home: House, provider: RealProvider) -> None:  # attack TEN-03, TEN-04
    task = (await home.send(await provider.token("alice"), "sales", "hello"))["result"]["task"]["id"]
    mallory = await provider.token("mallory")  # an operator, of her own tenant
    assert (await home.send(mallory, "sales", "hello"))["error"]["code"] == -32011
    assert await home.send_get(mallory, "sales", task) == await home.send_get(mallory, "sales", "t_0")
    status, names = await tools(home, mallory)
    assert status == 200 and "sales" not in names
    for headers in ({}, {"x-tenant": "acme"}, {"a2a-tenant": "acme"}):
        seen = await home.http.get("/api/tasks", headers={"authorization": f"Bearer {mallory}", **headers})
        assert seen.json()["items"] == []
        assert (await home.http.get(f"/api/tasks/{task}", headers={"authorization": f"Bearer {mallory}", **headers})).status_code == 404


async def test_its_keys_may_change(home: House, provider: RealProvider, monkeypatch: pytest.MonkeyPatch) -> None:  # attack TOK-06
    before, unseen = await provider.token("alice"), await provider.token("alice")
    assert (await tools(home, before))[0] == 200
    await provider.rotate()
    after = await provider.token("alice")
    assert (await tools(home, after))[0] == 401  # the set was fetched a moment ago, and whoever makes up kids causes no fetches
    monkeypatch.setattr("policies.keys.jwks.COOL_DOWN", 0.0)
    assert [(await tools(home, token))[0] for token in (after, before)] == [200, 200]  # the old key is published still
    await provider.withdraw()
    monkeypatch.setattr("policies.keys.jwks.TTL", 0.0)
    assert [(await tools(home, token))[0] for token in (after, unseen)] == [200, 401]
