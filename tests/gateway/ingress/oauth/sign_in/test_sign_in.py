"""A person signs in with a client: what the client learns before, what the person reads, and what the token opens."""

import json
from pathlib import Path

import httpx
import pytest

from gateway.server.settings import Settings
from tests.fakes.house import URL, CallbackAgent, House, house
from tests.fakes.sign_in import Browser, Client, is_admitted, link_in, parameters_of

ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
WRONG_REQUESTS = [
    ({"code_challenge": ""}, "invalid_request"),
    ({"code_challenge_method": "plain"}, "invalid_request"),
    ({"code_challenge_method": ""}, "invalid_request"),
    ({"code_challenge": "short"}, "invalid_request"),
    ({"response_type": "token"}, "unsupported_response_type"),
    ({"response_mode": "fragment"}, "invalid_request"),
    ({"scope": "unknown-scope"}, "invalid_scope"),
    ({"resource": "https://other.example/mcp"}, "invalid_target"),
    ({"resource": f"{URL}/api"}, "invalid_target"),
    ({"resource": URL}, "invalid_target"),
    ({"resource": f"{URL}.evil.test/mcp"}, "invalid_target"),
    ({"prompt": "none"}, "consent_required"),
    ({"request": "x.y.z"}, "request_not_supported"),
]
DEFAULT_SCOPE = "agent:* tool:* prompt:* resource:* state:* memory:*"


async def test_a_person_signs_in_with_a_client_and_is_the_same_person(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    client = Client(home)
    given = await client.tokens(resource=f"{home.url}/agents/sales")
    sent = await home.send(given["access_token"], "sales", "hello")
    owner = await home.http.get("/api/tasks", headers={"authorization": f"Bearer {home.token('alice')}"})
    assert owner.json()["items"][0]["id"] == sent["result"]["task"]["id"]
    assert owner.json()["items"][0]["owner"] == "default|interlock-development|alice"
    renewed = await client.refresh(given["refresh_token"])
    assert (await home.send(renewed.json()["access_token"], "sales", "again"))["result"]["task"]["id"]


@ONE_DATABASE
async def test_the_metadata_say_all_that_clients_need(home: House) -> None:
    document = (await home.http.get("/.well-known/oauth-authorization-server")).json()
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["authorization_endpoint"] == f"{URL}/oauth/authorize"
    assert document["registration_endpoint"] == f"{URL}/oauth/register"
    assert document["device_authorization_endpoint"] == f"{URL}/oauth/device"
    assert document["client_id_metadata_document_supported"] is document["authorization_response_iss_parameter_supported"] is True
    assert "none" in document["token_endpoint_auth_methods_supported"] and "offline_access" in document["scopes_supported"]
    resource = (await home.http.get("/.well-known/oauth-protected-resource/mcp")).json()
    assert resource["authorization_servers"][0] == URL and "offline_access" not in resource["scopes_supported"]


@ONE_DATABASE
async def test_a_401_names_the_scopes_to_ask_for(home: House) -> None:
    answer = await home.http.post("/mcp", json={})
    told = answer.headers["www-authenticate"]
    assert answer.status_code == 401 and f'scope="{DEFAULT_SCOPE}"' in told
    assert f'resource_metadata="{URL}/.well-known/oauth-protected-resource/mcp"' in told


@ONE_DATABASE
async def test_a_403_asks_for_more_only_where_the_person_may_have_it(home: House) -> None:
    await home.server("inventory", "check", "reserve")
    narrow = (await Client(home).tokens("bob", scope="tool:inventory.check offline_access"))["access_token"]
    answer = await home.call(narrow, "/mcp", "inventory_reserve", {})
    assert "www-authenticate" not in answer.headers, "bob's role does not cover it, so that signing in again is no use"
    wide = (await Client(home).tokens("alice", scope="tool:inventory.check"))["access_token"]
    asked = (await home.call(wide, "/mcp", "inventory_reserve", {})).headers["www-authenticate"]
    assert 'error="insufficient_scope"' in asked and 'scope="tool:inventory.check tool:inventory.reserve"' in asked


@ONE_DATABASE
async def test_a_403_asks_at_once_for_all_that_the_called_agent_names(home: House) -> None:
    named = ("tool:inventory.check", "tool:inventory.reserve", "tool:crm.drop", "tool:inventory.*", "registry:write")
    await home.agent(CallbackAgent("clerk"), named)
    client = Client(home)
    narrow = (await client.tokens("alice", scope="tool:inventory.check", resource=f"{URL}/agents/clerk"))["access_token"]
    message = {"message": {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hello"}]}}
    refused = await home.rpc("/agents/clerk", narrow, "SendMessage", message, **{"A2A-Version": "1.0"})
    asked = refused.headers["www-authenticate"]
    assert refused.status_code == 403 and 'scope="agent:clerk tool:inventory.check tool:inventory.reserve"' in asked
    wide = await client.tokens("alice", scope="agent:clerk tool:inventory.check tool:inventory.reserve", resource=f"{URL}/agents/clerk")
    assert (await home.send(wide["access_token"], "clerk", "hello"))["result"]["task"]["id"]


@ONE_DATABASE
async def test_the_consent_shows_client_place_and_wishes(home: House) -> None:
    client, browser = Client(home, redirect="https://app.example.com/cb"), Browser(home)
    await client.register(client_name='<b>Bank</b>\u202e "official"\n')
    page = await client.authorize(browser, scope="tool:crm.read agent:*")
    assert "&lt;b&gt;Bank&lt;/b&gt; &quot;official&quot;" in page.text and "\u202e" not in page.text
    assert "app.example.com" in page.text and f"{URL}/mcp" in page.text
    assert "call the tool crm.read" in page.text and "send tasks to every agent" in page.text and "registered itself" in page.text
    policy = page.headers["content-security-policy"]
    assert "form-action 'self'" in policy and "frame-ancestors 'none'" in policy and "<script" not in page.text


@ONE_DATABASE
async def test_over_https_the_cookie_belongs_to_this_host_alone(tmp_path: Path, database_url: str) -> None:
    async with house(tmp_path / "home", database_url, server={"public_url": "https://gw.example.com"}) as home:
        client = Client(home)
        await client.register()
        page = await client.authorize(Browser(home))
        cookie = page.headers["set-cookie"]
        assert cookie.startswith("__Host-interlock-sign-in=") and "Secure" in cookie and "HttpOnly" in cookie and "SameSite=lax" in cookie


@ONE_DATABASE
async def test_the_answer_is_a_page_that_goes_on_and_no_redirect(home: House) -> None:
    client, browser = Client(home), Browser(home)
    await client.register()
    answer = await browser.consent(await client.authorize(browser))
    assert answer.status_code == 200 and 'http-equiv="refresh"' in answer.text and answer.headers["referrer-policy"] == "no-referrer"
    assert parameters_of(link_in(answer)).keys() == {"code", "state", "iss"}


@ONE_DATABASE
async def test_a_person_who_refuses_gives_no_code(home: House) -> None:
    client, browser = Client(home), Browser(home)
    await client.register()
    answer = await browser.consent(await client.authorize(browser), login="refused")
    told = parameters_of(link_in(answer))
    assert (told["error"], told["iss"], told["state"]) == ("access_denied", URL, "the state")


@ONE_DATABASE
async def test_a_wrong_request_is_refused_to_the_client_with_iss(home: House) -> None:
    client = Client(home)
    await client.register()
    for changes, error in WRONG_REQUESTS:
        answer = await client.authorize(Browser(home), **changes)
        told = parameters_of(answer.headers["location"])
        assert (answer.status_code, told["error"], told["iss"], told["state"]) == (303, error, URL, "the state"), changes


@ONE_DATABASE
async def test_a_token_is_for_one_resource_and_never_for_the_api(home: House) -> None:
    token = (await Client(home).tokens("admin", scope="*", resource=""))["access_token"]
    assert await is_admitted(home, token, "/mcp")
    assert not await is_admitted(home, token, "/api/whoami") and not await is_admitted(home, token, "/api/tasks")


@ONE_DATABASE
async def test_an_operators_client_may_ask_for_the_api(tmp_path: Path, database_url: str) -> None:
    clients = {"board": {"name": "Status board", "redirect_uris": ["https://board.example.com/cb"], "api": True}}
    async with house(tmp_path / "home", database_url, sign_in={"clients": clients}) as home:
        client = Client(home, "board", "https://board.example.com/cb")
        token = (await client.tokens(resource=f"{URL}/api"))["access_token"]
        assert await is_admitted(home, token, "/api/whoami") and not await is_admitted(home, token, "/mcp")


@ONE_DATABASE
async def test_a_person_lists_and_ends_their_own_sessions(home: House) -> None:
    client = Client(home)
    given = await client.tokens("alice")
    mine, other = ({"authorization": f"Bearer {home.token(user)}"} for user in ("alice", "bob"))
    session = (await home.http.get("/api/sessions", headers=mine)).json()["items"][0]
    assert (session["client"], session["resource"]) == ("Test client", f"{URL}/mcp")
    assert (await home.http.delete(f"/api/sessions/{session['id']}", headers=other)).status_code == 404
    assert (await home.http.delete(f"/api/sessions/{session['id']}", headers=mine)).json() == {"id": session["id"], "ended": True}
    assert not await is_admitted(home, given["access_token"], "/mcp")
    assert (await client.refresh(given["refresh_token"])).json()["error"] == "invalid_grant"


@ONE_DATABASE
async def test_a_client_signs_the_person_out(home: House) -> None:
    client = Client(home)
    given = await client.tokens()
    other = Client(home, "interlock-cli")
    for form in ({"client_id": other.id, "token": given["refresh_token"]}, {"client_id": client.id, "token": "ir_unknown"}):
        assert (await home.http.post("/oauth/revoke", data=form)).status_code == 200
    assert await is_admitted(home, given["access_token"], "/mcp"), "only its own client ends a session"
    assert (await home.http.post("/oauth/revoke", data={"client_id": client.id, "token": given["refresh_token"]})).status_code == 200
    assert not await is_admitted(home, given["access_token"], "/mcp")


@ONE_DATABASE
async def test_pages_of_any_origin_reach_what_clients_in_browsers_need(home: House) -> None:
    page = "http://localhost:6274"
    asked = {"origin": page, "access-control-request-method": "POST", "access-control-request-headers": "mcp-protocol-version"}
    for path in ("/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource/mcp", "/oauth/register", "/oauth/token"):
        preflight = await home.http.options(path, headers=asked)
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, "*"), path
        assert "mcp-protocol-version" in preflight.headers["access-control-allow-headers"]
    metadata = await home.http.get("/.well-known/oauth-authorization-server", headers={"origin": page})
    refused = await home.http.post("/oauth/token", data={"grant_type": "refresh_token"}, headers={"origin": page})
    assert metadata.headers.get_list("access-control-allow-origin") == refused.headers.get_list("access-control-allow-origin") == ["*"]
    consent = await home.http.post("/oauth/consent", data={}, headers={"origin": page})
    assert (await home.http.post("/oauth/revoke", data={"token": "x"}, headers={"origin": page})).status_code == 403
    assert consent.status_code == 403 and "access-control-allow-origin" not in consent.headers


@ONE_DATABASE
async def test_sign_in_is_off_where_no_provider_is_named(tmp_path: Path, database_url: str) -> None:
    async with house(tmp_path / "home", database_url, sign_in={"development": "off"}) as home:
        document = (await home.http.get("/.well-known/oauth-authorization-server")).json()
        assert "authorization_endpoint" not in document and "registration_endpoint" not in document
        answers: list[httpx.Response] = [
            await home.http.get("/oauth/authorize"),
            await home.http.post("/oauth/register", json={}),
            await home.http.get("/oauth/device"),
        ]
        assert [answer.status_code for answer in answers] == [404, 404, 404]
        assert "scope=" not in (await home.http.post("/mcp", json={})).headers["www-authenticate"]


@ONE_DATABASE
async def test_the_audit_has_each_session_and_its_end(home: House) -> None:
    client = Client(home)
    given = await client.tokens("alice")
    await home.http.post("/oauth/revoke", data={"client_id": client.id, "token": given["refresh_token"]})
    answer = await home.http.get("/api/audit", params={"limit": 100}, headers={"authorization": f"Bearer {home.token('admin')}"})
    acts = [record["act"] for record in answer.json()["items"] if record["kind"] == "session"]
    assert sorted(acts) == ["signed-in", "signed-out"]
    assert given["refresh_token"] not in json.dumps(answer.json())


def test_development_users_are_chosen_on_loopback_alone(tmp_path: Path) -> None:
    def is_offered(public_url: str = "", host: str = "127.0.0.1", **more: object) -> bool:
        given = {"home": tmp_path, "host": host, "server": {"public_url": public_url}, **more}
        return Settings(**given).has_development_sign_in

    assert is_offered() and is_offered("http://localhost:8080")
    assert not is_offered("https://gateway.example.com"), "a tunnel leads here from anywhere"
    assert not is_offered(host="0.0.0.0", identity={"development": "on"})
    assert is_offered(host="0.0.0.0", identity={"development": "on"}, sign_in={"development": "on"})
    issuer = {"issuer": "https://idp.test", "jwks_url": "https://idp.test/jwks"}
    assert not is_offered(identity={"issuers": [issuer]}, sign_in={"development": "on"})
