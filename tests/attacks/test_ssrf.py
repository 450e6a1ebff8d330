"""Strangers' addresses: the gateway is talked into nothing that the egress guard forbids, and a canary inside hears nothing of it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.card_host import signed_by
from tests.fakes.cards import card
from tests.fakes.house import house
from tests.fakes.issuer import EcKey
from tests.fakes.reception import Reception
from tests.fakes.upstream import Upstream, answer

ELSEWHERE = "https://93.184.215.14/"  # public, and never called
ATTACKER = "127.0.0.3"  # allowed, as a host of the internet would be
SPELLINGS = [
    *("127.0.0.1", "localhost", "[::1]", "0", "0.0.0.0", "2130706433", "0x7f000001", "0177.0.0.1", "127.1"),
    *("１２７.0.0.1", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[2002:7f00:1::]", "[64:ff9b::7f00:1]", "[fec0::1]", "[fd00:ec2::254]"),
    *("169.254.169.254", "100.64.0.1", "198.18.0.1", "224.0.0.1", "user:pass@93.184.215.14"),
]
SCHEMES = [
    "file:///etc/passwd",
    "gopher://93.184.215.14/",
    "ftp://93.184.215.14/",
    "unix:/x",
    "//93.184.215.14/",
    "http:\\93.184.215.14",
]


@pytest.fixture
async def canary() -> AsyncIterator[Upstream]:
    """Inside; it answers as an agent would, so that nothing is refused for what it says."""

    async def agent(_head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(answer(json.dumps(card(ELSEWHERE, "1.0")).encode()))

    async with Upstream(agent) as listening:
        yield listening


@pytest.fixture
async def desk(tmp_path: Path, database_url: str) -> AsyncIterator[Reception]:
    async with house(tmp_path / "home", database_url, egress={"allow": [f"{ATTACKER}/32"]}) as home:
        yield Reception(home)


def cards_with(url: str) -> dict[str, dict[str, Any]]:
    """A card that is fine but for one address."""
    flow = {"authorizationUrl": ELSEWHERE, "tokenUrl": url, "scopes": {}}
    fine = card(ELSEWHERE, "1.0")
    return {
        "interface": fine | {"supportedInterfaces": [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]},
        "second interface": fine
        | {"supportedInterfaces": [*fine["supportedInterfaces"], {"url": url, "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"}]},
        "icon": fine | {"iconUrl": url},
        "documentation": fine | {"documentationUrl": url},
        "provider": fine | {"provider": {"organization": "x", "url": url}},
        "openid": fine | {"securitySchemes": {"i": {"openIdConnectSecurityScheme": {"openIdConnectUrl": url}}}},
        "oauth": fine | {"securitySchemes": {"o": {"oauth2SecurityScheme": {"flows": {"authorizationCode": flow}}}}},
    }


# attack SSR-01, SSR-04
async def test_no_spelling_of_an_inner_address_is_registered_or_reached(desk: Reception, canary: Upstream) -> None:
    for url in [*SCHEMES, *(f"http://{spelling}:{canary.port}/" for spelling in SPELLINGS)]:
        for path, body in (("/api/agents", {"url": url, "name": "a"}), ("/api/servers", {"url": url, "name": "s"})):
            refused = await desk.ask("POST", path, "admin", body)
            assert (refused.status_code, refused.json()["reason_id"]) == (400, "egress-refused"), url
            assert url not in refused.json()["detail"]
        for place, document in cards_with(url).items():
            refused = await desk.post("/api/agents", card=document, name="a")
            assert refused.status_code in (400, 422), (url, place)
        signed = await desk.post("/api/agents", card=signed_by(card(ELSEWHERE, "1.0"), EcKey("k1"), jku=url), name="signed")
        if signed.status_code == 201:  # nobody looked there
            assert signed.json()["signature"] == "unverified"
            await desk.ask("DELETE", "/api/agents/signed")
    assert not desk.home.gateway.registry.list("default")
    assert canary.connections == 0


async def test_a_name_of_this_machine_is_not_reached_whatever_it_stands_for(desk: Reception, canary: Upstream) -> None:  # attack SSR-01
    for name in ("localhost.", "LOCALHOST", "foo.localhost"):
        url = f"http://{name}:{canary.port}/"
        assert (await desk.post("/api/agents", url=url, name="a")).status_code in (400, 502)
        assert (await desk.post("/api/servers", url=url, name="s")).status_code in (400, 502)
    assert canary.connections == 0


# attack SSR-05
async def test_no_webhook_leads_inside_over_any_door(desk: Reception, canary: Upstream) -> None:
    home = desk.home
    async with Upstream(_answer_completed, ATTACKER) as agent:
        await home.registered("sales", agent.url)
        token, version = home.token("alice"), {"A2A-Version": "1.0"}
        task = (await home.send(token, "sales", "hi"))["result"]["task"]["id"]
        for spelling in SPELLINGS:
            url = f"http://{spelling}:{canary.port}/"
            config = {"taskPushNotificationConfig": {"url": url, "token": "t0ken"}}
            assert (await home.send(token, "sales", "hi", configuration=config))["error"]["code"] == -32602, spelling
            later = await home.rpc("/agents/sales", token, "CreateTaskPushNotificationConfig", {"taskId": task, "url": url}, **version)
            assert later.json()["error"]["code"] == -32602, spelling
        assert len(agent.requests) == 1  # nothing was done for nobody to hear of
    assert canary.connections == 0


async def _answer_completed(_head: bytes, _reader: Any, writer: Any) -> None:
    task = {"id": "1", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"task": task}}).encode()
    writer.write(answer(body, "200 OK", "Content-Type: application/json"))


# attack SSR-03
async def test_a_redirect_is_followed_by_nobody(desk: Reception, canary: Upstream) -> None:
    given = {"status": "", "location": ""}

    async def elsewhere(_head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(answer(b"", given["status"], f"Location: {given['location']}"))

    async with Upstream(elsewhere, ATTACKER) as attacker:
        await desk.home.registered("sales", f"{attacker.url}/a2a")
        targets = (f"{canary.url}/", "http://169.254.169.254/", "file:///etc/passwd", "/again", f"{attacker.url}/again")
        for status in ("301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"):
            for location in targets:
                given.update(status=status, location=location)
                attacker.requests.clear()
                assert (await desk.post("/api/agents", url=attacker.url, name="a")).status_code == 422
                assert len(attacker.requests) <= 3  # the places where a card may be, each once
                assert (await desk.post("/api/servers", url=f"{attacker.url}/mcp", name="s")).status_code == 502
                sent = await desk.home.send(desk.home.token("alice"), "sales", "hi")
                assert sent["result"]["task"]["status"]["state"] == "TASK_STATE_FAILED"
                paths = [head.split(b" ")[1] for head in attacker.requests]
                assert b"/again" not in paths
                assert paths.count(b"/a2a") == 1  # the hop token went there once, and nowhere else
    assert canary.connections == 0


# attack SSR-07
@pytest.mark.parametrize("itself", [False, True], ids=["metadata elsewhere", "metadata of its own"])
async def test_an_authorization_server_at_an_internal_address_is_not_fetched(desk: Reception, canary: Upstream, itself: bool) -> None:
    async def answer_with_challenge(head: bytes, _reader: Any, writer: Any) -> None:
        if b"oauth" in head.split(b"\r\n")[0]:
            metadata = {
                "resource": f"{attacker.url}/mcp",
                "authorization_servers": [canary.url],
                "token_endpoint": f"{canary.url}/token",
                "issuer": canary.url,
            }
            writer.write(answer(json.dumps(metadata).encode(), "200 OK", "Content-Type: application/json"))
        else:
            where = f"{(attacker if itself else canary).url}/.well-known/oauth-protected-resource"
            challenge = f'WWW-Authenticate: Bearer resource_metadata="{where}", scope="*"'
            writer.write(answer(b"", "401 Unauthorized", challenge))

    async with Upstream(answer_with_challenge, ATTACKER) as attacker:
        refused = await desk.post("/api/servers", url=f"{attacker.url}/mcp", name="crm")
        assert (refused.status_code, refused.json()["reason_id"]) == (502, "upstream"), refused.text
        assert "host" in refused.json()["detail"]
        trusting = {"auth": {"authorization_servers": [canary.url]}}  # even of one that an operator listed by mistake
        refused = await desk.post("/api/servers", url=f"{attacker.url}/mcp", name="crm", upstream=trusting)
        assert (refused.status_code, refused.json()["reason_id"]) == ((400, "egress-refused") if itself else (502, "upstream"))
    assert canary.connections == 0
