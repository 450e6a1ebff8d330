"""Claims about servers that people's own accounts open, through the whole gateway: the page, whose it is, and that the work goes on."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from registry.cards.card import RegistrationStatus
from registry.seeds import ConfiguredEntryRegistrar, ConfiguredServer
from tests.fakes.authorization_server import AuthorizationServer, Plain, Protected, authorization_server, protected
from tests.fakes.health_checks import check_due
from tests.fakes.house import TRACE, CallbackAgent, House

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

SIGNED = re.compile(r'name="request" value="[^"]+"')  # what the form of a sign-in carries
URL_ELICITATION: dict[str, Any] = {"elicitation": {"url": {}}}
META = "io.modelcontextprotocol/"


class Place:
    """A gateway with a protected server, registered as `inventory`, and its authorization server."""

    def __init__(self, home: House, issuer: AuthorizationServer, server: Protected, app: Plain) -> None:
        self.home, self.issuer, self.server, self.app = home, issuer, server, app

    async def api(self, method: str, path: str, user: str = "admin", **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.home.token(user)}", **more.pop("headers", {})}
        return await self.home.http.request(method, path, headers=headers, **more)

    async def register(self, **auth: Any) -> httpx.Response:
        offer = {"name": "inventory", "url": f"{self.server.origin}/mcp", "upstream": {"auth": auth}}
        return await self.api("POST", "/api/servers", json=offer)

    async def registered(self) -> None:
        needed = (await self.register()).json()
        await self.connect(address(needed["detail"]), "admin")
        assert (await self.register()).status_code == 201

    async def call(self, user: str = "alice", capabilities: Any = URL_ELICITATION, **more: Any) -> httpx.Response:
        meta = {f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": capabilities}
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "read", "accept": "application/json"}
        params = {"name": "read", "arguments": {}, "_meta": meta, **more}
        headers["accept"] = "application/json, text/event-stream"
        return await self.home.rpc("/mcp/inventory", self.home.token(user), "tools/call", params, **headers)

    async def connect(self, url: str, user: str, browser: httpx.AsyncClient | None = None) -> httpx.Response:
        """All that a person does in a browser."""
        async with httpx.AsyncClient() as own:
            browser = browser or own
            asked = await self.proved(url, user, browser)
            assert asked.status_code == 200, asked.text
            sent = await browser.get(onward(asked))
            return await browser.get(sent.headers["location"])

    async def proved(self, url: str, user: str, browser: httpx.AsyncClient) -> httpx.Response:
        assert (await browser.get(url)).status_code == 200
        return await browser.post(url, data={"token": self.home.token(user)}, headers={"origin": self.home.url})


def address(text: str) -> str:
    found = re.search(r"http://\S+/connect/[\w-]{43}", text)
    assert found is not None, text
    return found[0]


def onward(page: httpx.Response) -> str:
    found = re.search(r'href="([^"]+)"', page.text)
    assert found is not None
    return unescape(found[1])


@pytest.fixture
async def place(open_home: House) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(authorization_server())
        app = Plain()
        server = await stack.enter_async_context(protected(app, lambda: issuer))
        yield Place(open_home, issuer, server, app)


async def test_an_operator_connects_before_a_server_that_knows_users_is_registered(place: Place) -> None:
    needed = await place.register()
    assert needed.status_code == 403
    assert needed.json()["reason_id"] == "consent-needed"
    done = await place.connect(address(needed.json()["detail"]), "admin")
    assert "Connected" in done.text
    made = await place.register()
    assert made.status_code == 201
    assert made.json()["tools"] == 2
    shown = await place.api("GET", "/api/servers/inventory")
    assert sorted(shown.json()["tool_names"]) == ["read", "write"]
    assert (await place.api("POST", "/api/servers/inventory/refresh")).status_code == 200


async def test_a_server_that_wants_oauth_needs_no_setting_to_be_registered(place: Place) -> None:
    offer = {"name": "inventory", "url": f"{place.server.origin}/mcp"}
    refused = await place.api("POST", "/api/servers", "alice", json=offer)
    assert (refused.status_code, refused.json()["reason_id"]) == (502, "upstream")  # it is for operators to say
    needed = await place.api("POST", "/api/servers", json=offer)
    await place.connect(address(needed.json()["detail"]), "admin")
    assert (await place.api("POST", "/api/servers", json=offer)).status_code == 201
    url = (await place.call()).json()["result"]["inputRequests"]["connect"]["params"]["url"]
    await place.connect(url, "alice")
    assert (await place.call()).json()["result"]["content"][0]["text"] == "read"


async def test_a_server_of_the_file_is_down_until_an_operator_looks_at_it(place: Place) -> None:
    seed = ConfiguredServer("inventory", f"{place.server.origin}/mcp", upstream={"auth": {}})
    gateway = place.home.gateway
    seeds = ConfiguredEntryRegistrar(gateway.registry, gateway.drift_approval, gateway.onboarding.candidate_from_config)
    assert await seeds.register(seed)  # nothing is left to try
    await gateway.database.refresh_epochs()
    assert gateway.registry.find("default", "inventory").status is RegistrationStatus.DOWN
    needed = await place.api("POST", "/api/servers/inventory/refresh")
    assert needed.json()["reason_id"] == "consent-needed"
    await place.connect(address(needed.json()["detail"]), "admin")
    shown = await place.api("POST", "/api/servers/inventory/refresh")
    assert (shown.json()["status"], shown.json()["tools"]) == ("active", 2)
    assert await seeds.register(seed)  # as at the next start
    await gateway.database.refresh_epochs()
    assert gateway.registry.find("default", "inventory").status is RegistrationStatus.ACTIVE
    place.server.shown.clear()
    await gateway.entry_refresher.refresh_changed_server(("default", "inventory"))
    assert place.server.shown == []
    assert gateway.registry.find("default", "inventory").status is RegistrationStatus.ACTIVE


async def test_a_modern_client_is_asked_to_visit_the_page_and_goes_on(place: Place) -> None:
    await place.registered()
    asked = (await place.call()).json()["result"]
    assert asked["resultType"] == "input_required"
    question = asked["inputRequests"]["connect"]
    assert question["method"] == "elicitation/create"
    assert question["params"]["mode"] == "url"
    again = {"requestState": asked["requestState"], "inputResponses": {"connect": {"action": "accept"}}}
    assert (await place.call(**again)).json()["result"]["inputRequests"]["connect"]["params"]["url"] == question["params"]["url"]
    await place.connect(question["params"]["url"], "alice")
    assert (await place.call(**again)).json()["result"]["content"][0]["text"] == "read"
    assert place.app.calls == ["read"]
    assert place.app.params.keys() == {"name", "arguments", "_meta"}  # it knows nothing of what the gateway asked


async def test_a_client_that_can_not_show_an_address_says_so_with_the_address(place: Place) -> None:
    await place.registered()
    refused = await place.call(capabilities={})
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["code"] == -32021
    assert error["data"] == {"requiredCapabilities": {"elicitation": {"url": {}}}, "trace_id": TRACE}
    await place.connect(address(error["message"]), "alice")
    assert (await place.call(capabilities={})).json()["result"]["content"][0]["text"] == "read"


@pytest.mark.parametrize("capabilities", [URL_ELICITATION, {}], ids=["url", "none"])
async def test_an_older_client_gets_the_address_in_an_error(place: Place, capabilities: Any) -> None:
    await place.registered()
    home, token, accept = place.home, place.home.token("alice"), "application/json, text/event-stream"
    params = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "old", "version": "1"}}
    opened = await home.rpc("/mcp/inventory", token, "initialize", params, accept=accept)
    session = {"accept": accept, "mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
    call = {"name": "read", "arguments": {}}
    error = (await home.rpc("/mcp/inventory", token, "tools/call", call, **session)).json()["error"]
    if capabilities:
        assert error["code"] == -32042
        asked = error["data"]["elicitations"][0]
        assert asked["mode"] == "url"
        assert asked["elicitationId"] in asked["url"]
        url = asked["url"]
    else:
        assert error["code"] == -32017
        url = address(error["message"])
    await place.connect(url, "alice")
    answer = await home.rpc("/mcp/inventory", token, "tools/call", call, **session)
    assert answer.json()["result"]["content"][0]["text"] == "read"


async def test_a_task_waits_for_authorization_and_goes_on_by_itself(place: Place) -> None:
    await place.registered()
    token = place.home.token("alice")
    sent = await place.home.send(token, "inventory", "tool: read {}")
    task = sent["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    await place.connect(address(task["status"]["message"]["parts"][0]["text"]), "alice")
    async with asyncio.timeout(60):
        while True:
            task = (await place.home.send_get(token, "inventory", task["id"]))["result"]
            if task["status"]["state"] not in ("TASK_STATE_AUTH_REQUIRED", "TASK_STATE_WORKING"):
                break
            await asyncio.sleep(0.02)
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert task["artifacts"][0]["parts"][0]["text"] == "read"


# attack VLT-01
async def test_nobody_connects_their_account_to_somebody_else(place: Place) -> None:
    await place.registered()
    url = (await place.call()).json()["result"]["inputRequests"]["connect"]["params"]["url"]
    async with httpx.AsyncClient() as alice, httpx.AsyncClient() as bob:
        for user in ("bob", "admin"):
            assert (await place.proved(url, user, bob)).status_code == 404
        asked = await place.proved(url, "alice", alice)
        sent = await bob.get(onward(asked))  # alice hands bob the way, and bob consents with his account
        assert (await bob.get(sent.headers["location"])).status_code == 404
    assert place.issuer.count("token") == 1  # the operator's
    assert "inputRequests" in (await place.call()).json()["result"]


async def test_an_agent_on_an_errand_is_not_the_person(place: Place) -> None:
    await place.registered()
    url = (await place.call()).json()["result"]["inputRequests"]["connect"]["params"]["url"]
    tokens: list[str] = []

    async def keep(token: str, text: str) -> str:
        tokens.append(token)
        return "ok"

    await place.home.agent(CallbackAgent("sales", keep))
    await place.home.send(place.home.token("alice"), "sales", "hello")
    async with httpx.AsyncClient() as browser:
        answer = await browser.post(url, data={"token": tokens[0]})
    assert answer.status_code == 401


async def test_a_page_tells_a_stranger_nothing(place: Place) -> None:
    await place.registered()
    url = (await place.call()).json()["result"]["inputRequests"]["connect"]["params"]["url"]
    async with httpx.AsyncClient() as browser:
        there, not_there = await browser.get(url), await browser.get(f"{url[:-3]}abc")
        assert SIGNED.sub("", there.text) == SIGNED.sub("", not_there.text) != there.text
        assert "inventory" not in there.text
        assert (await browser.post(url, data={"token": "nonsense"})).status_code == 401
    policy = there.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert there.headers["cache-control"] == "no-store"


async def test_an_answer_counts_once_and_only_with_its_state_and_issuer(place: Place) -> None:  # attack VLT-03
    await place.registered()
    url = (await place.call()).json()["result"]["inputRequests"]["connect"]["params"]["url"]
    before = place.issuer.count("token")
    async with httpx.AsyncClient() as browser:
        back = (await browser.get(onward(await place.proved(url, "alice", browser)))).headers["location"]
        query = dict(parse_qsl(urlsplit(back).query))
        callback = back.partition("?")[0]
        for wrong in ({**query, "state": "x"}, {"code": query["code"]}):
            assert (await browser.get(f"{callback}?{urlencode(wrong)}")).status_code == 404
        refused = await browser.get(f"{callback}?{urlencode({**query, 'iss': 'https://evil.example'})}")
        assert refused.status_code == 400
        assert "evil" not in refused.text
        assert (await browser.get(back)).status_code == 404  # once
    assert place.issuer.count("token") == before


async def test_a_server_of_peoples_accounts_is_left_alone_by_the_rounds(place: Place) -> None:
    await place.registered()
    await place.home.gateway.database.refresh_epochs()
    place.server.shown.clear()
    for _ in range(3):
        await check_due(place.home.gateway.entry_refresher)
    assert place.server.shown == []
    assert place.home.gateway.registry.find("default", "inventory").status is RegistrationStatus.ACTIVE


# attack DLG-08
async def test_the_callers_token_is_not_among_what_the_server_sees(place: Place) -> None:
    await place.registered()
    token = place.home.token("alice")
    url = (await place.call()).json()["result"]["inputRequests"]["connect"]["params"]["url"]
    await place.connect(url, "alice")
    await place.call()
    assert {shown.removeprefix("Bearer ") for shown in place.server.shown} <= {"", *place.issuer.tokens}
    assert not any(token in str(given) for _, given in place.issuer.asked)


async def test_the_gateway_registers_anew_once_an_operator_deleted_its_registration(place: Place) -> None:
    await place.registered()
    (first,) = place.issuer.clients
    assert (await place.api("DELETE", "/api/servers/inventory/registration", "alice")).status_code == 403
    assert (await place.api("DELETE", "/api/servers/nothing/registration")).status_code == 404
    url = (await place.call()).json()["result"]["inputRequests"]["connect"]["params"]["url"]
    await place.connect(url, "alice")
    assert place.issuer.count("register") == 1  # people share the registration until it is deleted
    deleted = await place.api("DELETE", "/api/servers/inventory/registration")
    assert (deleted.status_code, deleted.content) == (204, b"")
    url = (await place.call("carol")).json()["result"]["inputRequests"]["connect"]["params"]["url"]
    await place.connect(url, "carol")
    assert (await place.call("carol")).json()["result"]["content"][0]["text"] == "read"
    assert place.issuer.count("register") == 2 and place.issuer.last("authorize")["client_id"] != first


async def test_secrets_of_an_entry_are_taken_in_and_never_shown(place: Place) -> None:
    place.issuer.clients["ours"] = ("client_secret_basic", "hush-hush")
    made = await place.register(account="service", issuer=place.issuer.issuer, client_id="ours", client_secret="hush-hush")
    assert made.status_code == 201
    assert made.json()["tools"] == 2
    shown = await place.api("GET", "/api/servers/inventory")
    assert "hush-hush" not in made.text + shown.text
    assert (await place.call()).json()["result"]["content"][0]["text"] == "read"


@pytest.mark.parametrize(
    ("auth", "field"),
    [
        ({"account": "mine"}, "upstream.auth.account"),
        ({"method": "tls", "client_id": "x", "issuer": "https://as"}, "upstream.auth.method"),
        ({"client_id": "x"}, "upstream.auth.issuer"),
        ({"client_secret": "x"}, "upstream.auth.client_id"),
        ({"client_secret": "env:HOME", "client_id": "x", "issuer": "https://as"}, "upstream.auth.client_secret"),
        ({"scopes": ["a b"]}, "upstream.auth.scopes"),
        ({"nonsense": "x"}, "upstream.auth.nonsense"),
    ],
)
async def test_settings_of_authorization_are_checked(place: Place, auth: dict[str, Any], field: str) -> None:
    refused = await place.register(**auth)
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith(field)


async def test_only_operators_set_up_authorization(place: Place) -> None:
    offer = {"name": "inventory", "url": f"{place.server.origin}/mcp", "upstream": {"auth": {"scopes": ["a"]}}}
    refused = await place.api("POST", "/api/servers", "alice", json=offer)
    assert refused.status_code == 422
    assert place.server.shown == []


async def test_the_gateway_describes_itself_to_authorization_servers(place: Place) -> None:
    for path, method in (("/.well-known/oauth-client", "none"), ("/.well-known/oauth-client-keys", "private_key_jwt")):
        document = (await place.home.http.get(path)).json()
        assert document["client_id"] == f"{place.home.url}{path}"
        assert document["redirect_uris"] == [f"{place.home.url}/connect/callback"]
        assert document["token_endpoint_auth_method"] == method
        assert "refresh_token" in document["grant_types"]
        assert "client_secret" not in document


async def test_a_server_whose_address_was_edited_is_shown_no_credential(place: Place) -> None:  # attack VLT-05
    await place.registered()
    await place.connect((await place.call()).json()["result"]["inputRequests"]["connect"]["params"]["url"], "alice")
    assert (await place.call()).json()["result"]["content"][0]["text"] == "read"
    registry = place.home.gateway.registry
    async with protected(Plain(), lambda: place.issuer) as elsewhere:  # which trusts the very same authorization server
        await registry.update(replace(registry.find("default", "inventory"), url=f"{elsewhere.origin}/mcp"))
        await place.home.gateway.database.refresh_epochs()
        assert (await place.call()).json()["result"]["inputRequests"]["connect"]["params"]["mode"] == "url"
        assert set(elsewhere.shown) == {""}


# attack DLG-11
async def test_without_the_persons_credential_every_door_asks_and_nothing_shared_is_used(place: Place) -> None:
    await place.registered()
    url = (await place.call()).json()["result"]["inputRequests"]["connect"]["params"]["url"]
    await place.connect(url, "alice")
    assert (await place.call()).json()["result"]["content"][0]["text"] == "read"
    (mine,) = (await place.api("GET", "/api/connections", "alice")).json()["items"]
    assert mine["names"] == ["inventory"]
    place.issuer.ways.revokes = True
    ended = await place.api("DELETE", f"/api/connections/{mine['id']}", "alice")
    assert ended.json()["revoked"] == "yes" and {kind for _, kind, _ in place.issuer.revoked} == {"refresh_token", "access_token"}
    place.server.shown.clear()
    assert (await place.call()).json()["result"]["inputRequests"]["connect"]["params"]["mode"] == "url"
    sent = await place.home.send(place.home.token("alice"), "inventory", "tool: read {}")
    assert sent["result"]["task"]["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    assert set(place.server.shown) == {""}  # the operator's own is there, and stays where it is
    assert place.app.calls == ["read"]


@pytest.mark.parametrize(
    ("upstream", "field"),
    [
        ({"account": "mine"}, "upstream.account"),
        ({"account": "person"}, "upstream.auth"),
        ({"account": "person", "auth": {"account": "service"}}, "upstream.auth.account"),
        ({"account": "service", "auth": {}}, "upstream.auth.account"),
        ({"account": "person", "auth": {}, "headers": {"X-Api-Key": "everybodys"}}, "upstream.headers"),
        ({"auth": {"grant": "magic"}}, "upstream.auth.grant"),
        ({"auth": {"grant": "id-jag"}}, "upstream.auth.provider"),
        ({"auth": {"grant": "exchange", "account": "service"}}, "upstream.auth.grant"),
        ({"auth": {"provider": {"issuer": "https://idp", "client_id": "us"}}}, "upstream.auth.provider"),
        ({"auth": {"authorization_servers": ["a b"]}}, "upstream.auth.authorization_servers"),
        ({"auth": {"client_secret": "file:/etc/passwd", "client_id": "x", "issuer": "https://as"}}, "upstream.auth.client_secret"),
        ({"auth": {"assertion": "file:/etc/passwd"}}, "upstream.auth.assertion"),
    ],
)
async def test_whose_account_is_used_is_said_without_contradiction(place: Place, upstream: dict[str, Any], field: str) -> None:
    offer = {"name": "inventory", "url": f"{place.server.origin}/mcp", "upstream": upstream}
    refused = await place.api("POST", "/api/servers", json=offer)
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith(field)
    assert place.server.shown == []
