"""Who shows no token, or no proper one, learns how to get one and nothing else: at every route there is."""

import re
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.ingress.admin.api import list_routes
from gateway.ingress.admin.openapi import build_openapi_document
from tests.fakes.house import CallbackAgent, House
from tests.house.source import ROOT

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PUBLIC = {
    "/.well-known/ai-catalog.json",
    "/.well-known/authzen-configuration",
    "/.well-known/jwks.json",
    "/.well-known/oauth-client",
    "/.well-known/oauth-client-keys",
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/mcp",
    "/agents/sales/.well-known/agent-card.json",
    "/livez",
    "/readyz",
}
CLIENTS = {"/oauth/token", "/oauth/revoke"}  # who comes there proves which agent it is, by no token
SIGN_IN = {"/oauth/register", "/oauth/device"}  # clients of people, before anybody has signed in
SIGNED = {"/api/events/sources/mcp"}  # webhooks of other systems, each with the signature of its source
DESCRIPTION = {"/docs", "/openapi.json"}  # what there is, and nothing of what is kept
RAW = [("POST", "/agents/sales"), ("POST", "/agents/nobody"), ("POST", "/mcp"), ("POST", "/mcp/inventory"), ("POST", "/mcp/nothing")]
RAW += [("GET", "/mcp"), ("DELETE", "/mcp"), ("GET", "/agents/sales"), ("GET", "/metrics")]
BAD = {  # what stands in Authorization; each is 401
    "nothing": [],
    "Bearer": ["Bearer"],
    "Bearer and a space": ["Bearer "],
    "two words": ["Bearer x y"],
    "two tokens": ["Bearer {token}, Bearer {token}"],
    "another scheme": ["Basic {token}"],
    "no scheme": ["{token}"],
    "a token and more": ["Bearer {token} {token}"],
    "an empty value": [""],
    "rubbish": ["Bearer \x7f\x01"],
    "a long token": ["Bearer " + "a" * 60_000],
    "a changed token": ["Bearer {token}x"],
    "a token of somebody's": ["Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."],
}


def routes(home: House) -> list[tuple[str, str]]:
    """(method, path) of every route of the framework, with names filled in."""
    app = home.app._handlers.framework.load().framework  # type: ignore[attr-defined]  # the framework's own list
    document = build_openapi_document(app, list(list_routes(app)))
    found = [(method.upper(), re.sub(r"\{.*?\}", "mcp", path)) for path, methods in document["paths"].items() for method in methods]
    assert len(found) > 20
    return found


async def ask(home: House, method: str, path: str, authorization: list[str], query: str = "") -> httpx.Response:
    headers = [("content-type", "application/json"), ("A2A-Version", "1.0")]
    headers += [("authorization", value.replace("{token}", home.token("admin"))) for value in authorization]
    return await home.http.request(method, path + query, headers=headers, content=b"{}" if method in ("POST", "PUT", "PATCH") else None)


async def closed(home: House) -> list[tuple[str, str]]:
    await home.agent(CallbackAgent("sales"))
    await home.server("inventory", "check")
    return [(method, path) for method, path in [*RAW, *routes(home)] if path not in PUBLIC | DESCRIPTION | CLIENTS | SIGN_IN | SIGNED]


# attack TOK-01
async def test_every_route_but_the_public_ones_wants_a_token(home: House) -> None:
    for method, path in await closed(home):
        for what, authorization in BAD.items():
            answer = await ask(home, method, path, authorization)
            assert answer.status_code == 401, (method, path, what)
            challenge = answer.headers["www-authenticate"]
            assert challenge.startswith("Bearer ") and "/.well-known/oauth-protected-resource" in challenge, (method, path)
            if path != "/metrics":
                assert ('error="invalid_token"' in challenge) == (what != "nothing"), (path, what)
            assert home.token("admin")[:20] not in answer.text


# attack TOK-01
async def test_a_challenge_leads_to_where_tokens_are_told_of(home: House) -> None:
    for path in ("/agents/sales", "/mcp", "/mcp/inventory", "/mcp/virtual/desk", "/api/tasks"):
        refused = await ask(home, "GET" if path.startswith("/api") else "POST", path, [])
        found = re.search(r'resource_metadata="([^"]+)"', refused.headers["www-authenticate"])
        assert found is not None
        metadata = await home.http.get(found[1])
        assert metadata.status_code == 200
        assert metadata.json()["resource"] in (f"{home.url}{path}", home.url)


# attack TOK-01
async def test_two_authorization_headers_are_none(home: House) -> None:
    for method, path in await closed(home):
        for twice in (["Bearer {token}", "Bearer {token}"], ["Bearer {token}", "Basic eDp5"], ["", "Bearer {token}"]):
            answer = await ask(home, method, path, twice)
            assert answer.status_code == (401 if path == "/metrics" else 400), (method, path)
    form = {"grant_type": "x"}
    headers = [("authorization", "Basic eDp5"), ("authorization", "Basic eDp5"), ("content-type", "application/x-www-form-urlencoded")]
    for path in CLIENTS:
        assert (await home.http.post(path, data=form, headers=headers)).status_code == 400


# attack TOK-01
async def test_a_token_in_the_address_or_a_cookie_is_not_seen(home: House) -> None:
    token = home.token("admin")
    for method, path in await closed(home):
        for query in (f"?access_token={token}", f"?token={token}&Authorization=Bearer%20{token}"):
            assert (await ask(home, method, path, [], query)).status_code == 401, (method, path)
    for header in ("cookie", "x-api-key", "proxy-authorization", "x-forwarded-user", "interlock-delegation", "x-authorization"):
        answer = await home.http.get("/api/tasks", headers={header: f"Bearer {token}"})
        assert answer.status_code == 401, header


async def test_what_is_public_is_public_and_says_no_more_than_it_must(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    for path in PUBLIC | DESCRIPTION:
        assert (await home.http.get(path)).status_code == 200, path
    public = {path for method, path in routes(home) if (await ask(home, method, path, [])).status_code not in (401, 405)}
    assert public - CLIENTS - SIGN_IN - SIGNED <= PUBLIC | {"/.well-known/oauth-protected-resource/mcp"}
    for path in CLIENTS:
        refused = await home.http.post(path, data={"grant_type": "x"})
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
        assert refused.headers["www-authenticate"].startswith("Basic ")


async def test_a_token_for_one_resource_opens_no_other(home: House) -> None:  # attack TOK-07
    everything = await closed(home)
    for audience in (f"{home.url}/", home.url.upper(), f"{home.url}.evil.test", "https://evil.test", f"{home.url}/mcp/other"):
        headers = {"authorization": f"Bearer {home.token('admin', audience=audience)}", "content-type": "application/json"}
        for method, path in everything:
            content: Any = b"{}" if method in ("POST", "PATCH") else None
            assert (await home.http.request(method, path, headers=headers, content=content)).status_code == 401, (audience, path)


class TestWithAnIssuerOfPeople:
    """Where people come from an identity provider, nothing but what must be is public."""

    @pytest.fixture
    async def strict(self, tmp_path: Any, database_url: str) -> Any:
        from tests.fakes.house import house

        issuer = {"issuer": "https://idp.test", "jwks_url": "https://idp.test/jwks"}
        async with house(tmp_path / "home", database_url, identity={"issuers": [issuer]}) as built:
            yield built

    async def test_the_description_is_there_and_names_nothing_that_is_kept(self, strict: House) -> None:
        await strict.agent(CallbackAgent("inventor"))
        for path in DESCRIPTION:
            answer = await strict.http.get(path)
            assert answer.status_code == 200 and "inventor" not in answer.text

    async def test_development_tokens_are_none(self, strict: House) -> None:
        assert (await ask(strict, "GET", "/api/tasks", ["Bearer {token}"])).status_code == 401


async def test_a_cached_token_is_refused_from_the_second_it_expires(home: House) -> None:
    """It is remembered for a minute, and clocks may differ by 30 s; neither makes it live longer."""
    await home.agent(CallbackAgent("support"))
    token = home.token("alice", ttl=600)
    assert "result" in await home.send(token, "support", "hello")
    claims = home.gateway.rulings.token_verifier.find_cached(token, {home.url})
    assert claims is not None
    callers = home.gateway.rulings.caller_resolver
    callers._environment = replace(callers._environment, now=lambda: claims.expires)
    answer = await home.http.get("/api/tasks", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 401 and "expired" in answer.json()["detail"]
    assert (await home.send(token, "support", "hello"))["error"]["message"] == "The token has expired; get a fresh one."


async def test_what_is_public_is_what_the_security_paper_says(home: House) -> None:
    paper = (ROOT / "SECURITY.md").read_text()
    (said,) = [part for part in paper.split("\n- ") if part.startswith("`/livez`")]
    for path in PUBLIC - {path for path in PUBLIC if "/.well-known/" in path}:
        assert f"`{path}`" in said
    for path in DESCRIPTION:
        assert f"`{path}`" in said
        assert (await home.http.get(path)).status_code == 200
