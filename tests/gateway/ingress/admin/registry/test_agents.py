"""/api/agents: real agents are offered by people of different rights."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from registry.cards.card import RegistrationStatus
from tests.fakes.a2a_agents import serving
from tests.fakes.cards import card, card_app
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.reception import Reception
from tests.fakes.upstream import Upstream

ELSEWHERE = "https://93.184.215.14/"  # public, and never called


@pytest.fixture
async def desk(home: House) -> Reception:
    return Reception(home)


@pytest.fixture
async def agent_url() -> AsyncIterator[str]:
    async with serving(card_app("1.0")) as url:
        yield url


async def names(desk: Reception, user: str, **token: Any) -> list[str]:
    return [item["name"] for item in (await desk.ask("GET", "/api/agents", user, **token)).json()["items"]]


@pytest.mark.parametrize(("versions", "spoken"), [(("1.0",), "1.0"), (("0.3",), "0.3"), (("1.0", "0.3"), "1.0")])
async def test_an_agent_of_either_version_is_registered_from_its_url(desk: Reception, versions: tuple[str, ...], spoken: str) -> None:
    async with serving(card_app(*versions)) as url:
        answer = await desk.post("/api/agents", url=url)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["name"], made["kind"], made["status"], made["url"]) == ("sales-agent-eu", "a2a", "active", url)
    assert [skill["id"] for skill in made["skills"]] == ["order"]
    assert made["card"] == card(url, *versions)
    entry = desk.home.gateway.registry.find("default", "sales-agent-eu")
    assert (entry.facts["interface"], entry.facts["version"], entry.facts["streaming"]) == (url, spoken, True)
    assert desk.home.gateway.registry.verify_secret(made["client_id"], made["client_secret"])


@pytest.mark.parametrize("path", ["/.well-known/agent.json", "/sales/.well-known/agent-card.json", "/some/card.json", "/card"])
async def test_a_card_is_found_where_agents_keep_it(desk: Reception, path: str) -> None:
    async with serving(card_app("1.0", path=path)) as url:
        given = url.rstrip("/") + path.replace("/.well-known/agent.json", "").replace("/.well-known/agent-card.json", "/")
        answer = await desk.post("/api/agents", url=given)
    assert answer.status_code == 201, answer.text


async def test_the_card_comes_back_as_it_came(desk: Reception) -> None:
    document = card(ELSEWHERE, "0.3") | {"x-own": [1, "é"]}
    await desk.post("/api/agents", card=document, name="sales")
    assert (await desk.ask("GET", "/api/agents/sales/card")).json() == document
    shown = (await desk.ask("GET", "/api/agents/sales")).json()
    assert shown["card"] == document
    assert "client_secret" not in shown


async def test_what_an_operator_registers_is_active_and_what_others_register_waits(desk: Reception) -> None:  # attack REG-01
    assert (await desk.post("/api/agents", card=card(ELSEWHERE, "1.0"), name="ours")).json()["status"] == "active"
    assert (await desk.post("/api/agents", "alice", card=card(ELSEWHERE, "1.0"), name="hers")).json()["status"] == "pending"
    refused = (await desk.home.send(desk.home.token("alice"), "hers", "Hi"))["error"]
    unknown = (await desk.home.send(desk.home.token("alice"), "nobody", "Hi"))["error"]
    assert refused == unknown  # not routable
    assert (await desk.ask("POST", "/api/agents/hers/approve", "alice")).status_code == 403
    assert (await desk.approve("/api/agents/hers")).json()["status"] == "active"


async def test_everybody_sees_what_they_may_use_their_own_and_operators_all(desk: Reception) -> None:
    await desk.post("/api/agents", card=card(ELSEWHERE, "1.0"), name="ours")
    await desk.post("/api/agents", "alice", card=card(ELSEWHERE, "1.0"), name="hers")
    assert await names(desk, "admin") == ["hers", "ours"]
    assert await names(desk, "alice") == ["hers", "ours"]
    assert await names(desk, "bob") == ["ours"]
    assert await names(desk, "nora") == []
    assert await names(desk, "bob", scope="agent:other") == []
    assert await names(desk, "admin", tenant="acme") == []


@pytest.mark.parametrize("path", ["", "/card"])
async def test_what_may_not_be_seen_is_answered_as_what_does_not_exist(desk: Reception, path: str) -> None:
    await desk.post("/api/agents", "alice", card=card(ELSEWHERE, "1.0"), name="hers")
    unknown = await desk.ask("GET", f"/api/agents/nothing{path}", "bob")
    for method, user, more in (("GET", "bob", {}), ("DELETE", "bob", {}), ("GET", "admin", {"tenant": "acme"}), ("DELETE", "nora", {})):
        hidden = await desk.ask(method, f"/api/agents/hers{path if method == 'GET' else ''}", user, **more)
        assert (hidden.status_code, hidden.json()) == (404, unknown.json())
    assert desk.home.gateway.registry.find("default", "hers")
    assert (await desk.ask("POST", "/api/agents/hers/approve", "bob")).json() == unknown.json()
    assert (await desk.ask("GET", "/api/servers/hers", "alice")).status_code == 404  # an agent is no server


async def test_only_operators_and_who_registered_it_see_whose_it_is(desk: Reception) -> None:
    await desk.post("/api/agents", "alice", card=card(ELSEWHERE, "1.0"), name="hers")
    await desk.approve("/api/agents/hers")
    seen = {user: set((await desk.ask("GET", "/api/agents/hers", user)).json()) for user in ("alice", "bob", "admin")}
    inside = {
        "owner",
        "calls",
        "client_id",
        "context",
        "drift",
        "endpoints",
        "memory",
        "rank",
        "signed_by",
        "source",
        "trusted_keys",
        "warnings",
    }
    assert seen["alice"] == seen["admin"] == seen["bob"] | inside


async def test_an_agent_is_removed_by_who_registered_it_or_an_operator(desk: Reception) -> None:
    for name in ("one", "two"):
        await desk.post("/api/agents", "alice", card=card(ELSEWHERE, "1.0"), name=name)
        await desk.approve(f"/api/agents/{name}")
    assert (await desk.ask("DELETE", "/api/agents/one", "bob")).status_code == 403
    narrowed = await desk.ask("DELETE", "/api/agents/one", "alice", scope="agent:*")
    assert (narrowed.status_code, "insufficient_scope" in narrowed.headers["www-authenticate"]) == (403, True)
    assert (await desk.ask("DELETE", "/api/agents/one", "alice")).status_code == 204
    assert (await desk.ask("DELETE", "/api/agents/two")).status_code == 204
    assert await names(desk, "admin") == []


async def test_a_lost_secret_is_replaced(desk: Reception) -> None:
    made = (await desk.post("/api/agents", "alice", card=card(ELSEWHERE, "1.0"), name="hers")).json()
    renewed = (await desk.ask("POST", "/api/agents/hers/secret", "alice")).json()
    verify = desk.home.gateway.registry.verify_secret
    assert renewed["client_id"] == made["client_id"]
    assert verify(made["client_id"], renewed["client_secret"])
    assert not verify(made["client_id"], made["client_secret"])


@pytest.mark.parametrize(
    ("given", "field"),
    [({"ceiling": ["*"]}, "ceiling"), ({"delegation": "bearer"}, "delegation"), ({"upstream": {"headers": {"X": "y"}}}, "upstream")],
)
async def test_only_operators_set_terms(desk: Reception, given: dict[str, Any], field: str) -> None:  # attack REG-09
    refused = await desk.post("/api/agents", "alice", card=card(ELSEWHERE, "1.0"), name="hers", **given)
    assert (refused.status_code, refused.json()["detail"]) == (422, f"{field} is for operators to set")
    assert (await desk.post("/api/agents", card=card(ELSEWHERE, "1.0"), name="ours", **given)).status_code == 201
    assert await names(desk, "admin") == ["ours"]


async def test_an_agent_on_an_errand_registers_nothing_by_itself(desk: Reception) -> None:  # attack REG-09
    home, answers = desk.home, []

    async def act(token: str, _text: str) -> str:
        body = {"card": card(ELSEWHERE, "1.0"), "name": "mine", "ceiling": ["*"]}
        answers.append(await desk.ask("POST", "/api/agents", "x", body, token=token))
        return "done"

    await home.agent(CallbackAgent("support", act), ceiling=("tool:inventory.*",))
    await home.send(home.token("admin"), "support", "Hi")
    assert answers[0].status_code == 401  # no hop token is made for /api
    assert await names(desk, "admin") == ["support"]


WRONG: list[tuple[Any, str]] = [
    ({}, "url"),
    ({"url": "http://a.example", "card": {}}, "url"),
    ({"url": 7}, "url"),
    ({"card": "x"}, "card"),
    ({"card": {}}, "name"),
    ({"card": {"name": "N", "description": "D", "version": "1"}}, "supportedInterfaces"),
    ({"card": card(ELSEWHERE, "1.0"), "name": "No Good"}, "name"),
    ({"card": card(ELSEWHERE, "1.0"), "name": "sandbox"}, "name"),
    ({"card": card(ELSEWHERE, "1.0") | {"name": "日本"}}, "name"),
    ({"card": card(ELSEWHERE, "1.0"), "kind": "telepathy"}, "kind"),
    ({"card": card(ELSEWHERE, "1.0"), "command": "/bin/sh"}, "command"),
    ({"card": card(ELSEWHERE, "1.0"), "surprise": 1}, "surprise"),
    ({"card": card(ELSEWHERE, "1.0"), "ceiling": ["everything"]}, "ceiling"),
    ({"card": card(ELSEWHERE, "1.0"), "ceiling": [1]}, "ceiling[0]"),
    ({"card": card(ELSEWHERE, "1.0"), "delegation": "shout"}, "delegation"),
    ({"card": card(ELSEWHERE, "1.0"), "upstream": {"headers": {"X": "a\r\nb"}}}, "upstream.headers"),
    ({"card": card(ELSEWHERE, "1.0"), "upstream": {"headers": {"X": "env:HOME"}}}, "upstream.headers.X"),
    ({"kind": "bedrock", "upstream": {"agent": "A", "alias": "B", "session_token": "env:HOME"}}, "upstream.session_token"),
    ({"kind": "bedrock", "upstream": {"agent": "A", "alias": "B", "ambient": True}}, "upstream.ambient"),
    ({"card": card(ELSEWHERE, "1.0"), "upstream": {"timeout": -1.0}}, "upstream.timeout"),
    ({"card": card(ELSEWHERE, "1.0"), "upstream": {"tls": "yes"}}, "upstream.tls"),
    ({"card": card(ELSEWHERE, "1.0"), "upstream": {"proxy": "x"}}, "upstream.proxy"),
    ([], "body"),
]


async def test_a_wrong_member_is_named(desk: Reception) -> None:
    for body, field in WRONG:
        answer = await desk.ask("POST", "/api/agents", "admin", body)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), body
        assert answer.json()["detail"].split()[0] == field
    assert await names(desk, "admin") == []


NO_JSON = [
    b"",
    b"{",
    b'{"url":"http://a.example/","url":"http://b.example/"}',
    b'{"url":"\xff"}',
    b'{"card":' + b"[" * 10_000,
    b'{"a":NaN}',
]


async def test_what_is_no_json_is_refused(desk: Reception) -> None:
    for body in NO_JSON:
        answer = await desk.ask("POST", "/api/agents", "admin", body)
        assert (answer.status_code, answer.json()["reason_id"]) == (400, "bad-json")


async def test_too_large_a_body_is_refused(desk: Reception) -> None:
    assert (await desk.ask("POST", "/api/agents", "admin", b" " * (5 << 20))).status_code == 413
    answer = await desk.post("/api/agents", card=card(ELSEWHERE, "1.0") | {"x": "y" * (1 << 20)})
    assert answer.json()["reason_id"] == "bad-card"


async def test_a_taken_name_is_told(desk: Reception) -> None:  # attack REG-01
    await desk.post("/api/agents", card=card(ELSEWHERE, "1.0"))
    answer = await desk.post("/api/agents", "alice", card=card(ELSEWHERE, "1.0"))
    assert (answer.status_code, answer.json()["reason_id"]) == (409, "name-taken")


INNER = "http://10.0.0.1/x"


LEADING_INSIDE: list[tuple[dict[str, Any], str]] = [
    ({"iconUrl": INNER}, "iconUrl"),
    ({"documentationUrl": "http://[::ffff:10.0.0.1]/"}, "documentationUrl"),
    ({"provider": {"organization": "x", "url": "http://2130706433/"}}, "provider.url"),
    ({"supportedInterfaces": [{"url": INNER, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]}, "supportedInterfaces[0].url"),
    (
        {"securitySchemes": {"i": {"openIdConnectSecurityScheme": {"openIdConnectUrl": "http://169.254.169.254/"}}}},
        "securitySchemes.i.openIdConnectSecurityScheme.openIdConnectUrl",
    ),
]


async def test_a_card_that_leads_inside_is_refused_by_field(desk: Reception) -> None:  # attack SSR-01
    for change, field in LEADING_INSIDE:
        answer = await desk.post("/api/agents", card=card(ELSEWHERE, "1.0") | change)
        assert (answer.status_code, answer.json()["reason_id"]) == (400, "egress-refused")
        assert answer.json()["detail"].split()[0] == field


INSIDE = [INNER, "http://0x7f000001/", "http://127.0.0.1:6379/", "file:///etc/passwd", "http://u:p@127.0.0.1/", "http://[::1"]


async def test_a_url_that_leads_inside_is_refused(desk: Reception) -> None:  # attacks SSR-01, SSR-04
    for url in INSIDE:
        for path, more in (("/api/agents", {}), ("/api/servers", {"name": "crm"})):
            answer = await desk.ask("POST", path, "admin", {"url": url, **more})
            assert (answer.status_code, answer.json()["reason_id"]) == (400, "egress-refused"), url


OURS = [
    "http://interlock.test/",
    "http://INTERLOCK.test:80/agents/sales",
    "http://127.0.0.1:8080/",
    "http://localhost:8080/x",
    "http://[::1]:8080/",
]


async def test_the_gateway_is_no_agent_of_its_own(tmp_path: Path, database_url: str) -> None:  # attack PRO-12
    allowed = {"allow": ["127.0.0.0/8", "::1/128", "localhost", "interlock.test"]}
    async with house(tmp_path / "home", database_url, egress=allowed, grpc_port=50051) as home:
        desk = Reception(home)
        for url in OURS:
            answer = await desk.post("/api/agents", card=card(url, "1.0"), name="loop")
            assert (answer.status_code, answer.json()["reason_id"]) == (400, "egress-refused"), url
            assert answer.json()["detail"] == "url is refused: it is an address of this gateway, which would call itself", url
            answer = await desk.post("/api/servers", url=url, name="loop")
            assert (answer.status_code, answer.json()["reason_id"]) == (400, "egress-refused"), url
        answer = await desk.post("/api/agents", card=card("http://127.0.0.1:8081/", "1.0"), name="neighbour")
        assert answer.status_code == 201


async def test_a_redirected_card_is_not_followed(desk: Reception) -> None:  # attack SSR-03
    async def elsewhere(_head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")

    async with Upstream(elsewhere) as upstream:
        answer = await desk.post("/api/agents", url=upstream.url)
    assert (answer.status_code, "answers 302" in answer.json()["detail"]) == (422, True)


async def test_an_agent_that_is_not_there_is_told_without_its_words(desk: Reception) -> None:
    async with Upstream(lambda *_: None) as upstream:  # type: ignore[arg-type, return-value]  # it is closed before it is asked
        url = upstream.url
    answer = await desk.post("/api/agents", "alice", url=url)
    assert (answer.status_code, answer.json()["detail"]) == (502, "the upstream can't be reached")


async def test_what_is_no_card_is_told(desk: Reception) -> None:
    async def page(_head: bytes, _reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")

    async with Upstream(page) as upstream:
        answer = await desk.post("/api/agents", url=upstream.url)
    assert (answer.status_code, answer.json()["detail"].split()[0]) == (422, "url")


async def test_lists_come_in_pages(desk: Reception) -> None:
    for name in ("a", "b", "c"):
        await desk.post("/api/agents", card=card(ELSEWHERE, "1.0"), name=name)
    seen, path = [], "/api/agents?limit=2"
    while path:
        page = (await desk.ask("GET", path)).json()
        seen.append([item["name"] for item in page["items"]])
        path = f"/api/agents?limit=2&cursor={page['next']}" if page["next"] else ""
    assert seen == [["a", "b"], ["c"]]
    assert (await desk.ask("GET", "/api/agents?cursor=%00")).status_code == 400
    assert "card" not in page["items"][0]


async def test_nothing_is_told_without_a_token(desk: Reception) -> None:
    for method, path in (("GET", "/api/agents"), ("POST", "/api/agents"), ("DELETE", "/api/agents/x"), ("POST", "/api/agents/x/approve")):
        assert (await desk.ask(method, path, "")).status_code == 401


async def test_a_quarantined_agent_is_unknown_to_its_users(desk: Reception) -> None:
    await desk.post("/api/agents", card=card(ELSEWHERE, "1.0"), name="ours")
    await desk.home.gateway.registry.set_status("default", "ours", RegistrationStatus.QUARANTINED)
    assert (await desk.ask("GET", "/api/agents/ours", "alice")).status_code == 404
    assert (await desk.ask("GET", "/api/agents/ours")).json()["status"] == "quarantined"
