"""Tokens of stock identity providers, as their documentation shows them, under the settings that our guide gives for each."""

import io
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from gateway.server.settings import DEFAULT_ROLES
from gateway.telemetry.logs import configure_logging
from registry.cards.card import Family, McpTool, RegistrationStatus
from registry.rows import Candidate
from tests.fakes.house import CAPABILITIES, House, house
from tests.fakes.issuer import ABSENT, FakeIssuer, RsaKey, serving
from tests.house.source import ROOT

GATEWAY = "https://gateway.example.com"
EMPTY = "dev.interlock/empty"
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def guide(section: str) -> dict[str, Any]:
    """The settings of one section of the guide."""
    text = (ROOT / "docs" / "providers.md").read_text()
    found = re.search(rf"^## {section}$.*?^```yaml$(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, section
    settings: dict[str, Any] = yaml.safe_load(found[1])
    return settings


def at(now: int, life: int, **claims: Any) -> dict[str, Any]:
    return {"iat": now, "exp": now + life, **claims}


def keycloak(now: int) -> dict[str, Any]:
    return at(
        now,
        36_000,
        auth_time=now,
        jti="onrtac:5d2c9f64-9d9a",
        iss="https://keycloak.example.com/realms/acme",
        aud=[GATEWAY, "account"],
        sub="7c1d4f4e-5f0b-4a64-b9a6-7a2d5c0f0a11",
        typ="Bearer",
        azp="desk",
        sid="8a0c",
        acr="1",
        **{"allowed-origins": ["/*"]},
        realm_access={"roles": ["default-roles-acme", "offline_access", "sales"]},
        resource_access={"interlock": {"roles": ["auditor"]}, "account": {"roles": ["manage-account", "view-profile"]}},
        scope="openid email profile",
        email_verified=True,
        name="Alice Ade",
        preferred_username="alice",
        email="alice@acme.example",
    )


def entra(now: int) -> dict[str, Any]:
    tenant = "11111111-2222-3333-4444-555555555555"
    return at(
        now,
        5371,
        nbf=now,
        jti=ABSENT,
        uti="AXB9VmNh4EqzWmVDwGl_AA",
        iss=f"https://login.microsoftonline.com/{tenant}/v2.0",
        aud="aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        aio="AWQAm/8XAAAA",
        azp="99999999-8888-7777-6666-555555555555",
        azpacr="0",
        name="Alice Ade",
        oid="c1b2a3d4-0000-4000-8000-00000000a11c",
        preferred_username="alice@acme.example",
        rh="0.AXEA",
        tid=tenant,
        roles=["Sales.User"],
        groups=["0f3c8d5a-7a52-4e0e-9a1e-3d1f0c9b7a11"],
        scp="access_as_user",
        sub="PaIrWiSe_kq3",
        ver="2.0",
    )


def okta(now: int) -> dict[str, Any]:
    return at(
        now,
        3600,
        ver=1,
        jti="AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
        iss="https://acme.okta.com/oauth2/default",
        aud=GATEWAY,
        cid="0oab8eb55Kb9jdMIr5d6",
        uid="00ub0oNGTSWTBKOLGLNR",
        scp=["openid", "profile"],
        auth_time=now - 30,
        sub="alice@acme.example",
        groups=["Everyone", "Sales"],
    )


def auth0(now: int) -> dict[str, Any]:
    return at(
        now,
        86_400,
        jti=ABSENT,
        iss="https://acme.eu.auth0.com/",
        aud=[GATEWAY, "https://acme.eu.auth0.com/userinfo"],
        azp="K1AUPhZq8mRi",
        sub="auth0|6553da60a54af58e29493993",
        scope="openid profile read:crm",
        permissions=["read:crm", "write:crm"],
        **{f"{GATEWAY}/roles": ["sales"]},
    )


def google_by_keycloak(now: int) -> dict[str, Any]:
    signed_in = {"exp": now + 300, "email": "alice@acme.example", "email_verified": True, "realm_access": {"roles": ["offline_access"]}}
    return {**keycloak(now), "iss": "https://keycloak.example.com/realms/google", "resource_access": {}, **signed_in}


SHAPES = {"Keycloak": keycloak, "Microsoft Entra ID": entra, "Okta": okta, "Auth0": auth0, "Google": google_by_keycloak}
OPENED = {  # who they are, and which tools they have, under the settings of the guide
    "Keycloak": ("7c1d4f4e-5f0b-4a64-b9a6-7a2d5c0f0a11", ["crm_read", "crm_write"]),
    "Microsoft Entra ID": ("c1b2a3d4-0000-4000-8000-00000000a11c", ["crm_read", "crm_write"]),
    "Okta": ("alice@acme.example", ["crm_read", "crm_write"]),
    "Auth0": ("auth0|6553da60a54af58e29493993", ["crm_read"]),  # its scopes are mapped
    "Google": ("alice@acme.example", ["crm_read", "crm_write", "mail_send"]),
}


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    made = FakeIssuer(now=time.time)
    made.key = RsaKey()
    with serving(made) as served:
        yield served


@asynccontextmanager
async def configured(path: Path, database_url: str, issuer: FakeIssuer, settings: dict[str, Any], **more: Any) -> AsyncIterator[House]:
    """A gateway with these settings and servers `crm` and `mail`; only the keys come from loopback."""
    (given,) = settings["identity"]["issuers"]
    assert urlsplit(given["jwks_url"]).hostname == urlsplit(given["issuer"]).hostname
    identity = {"development": "off", "issuers": [{**given, "jwks_url": issuer.jwks_url, **more}]}
    rest = {
        "roles": {**DEFAULT_ROLES, **settings.get("roles", {})},
        "server": {"public_url": GATEWAY},
        "egress": {"allow": ["127.0.0.0/8"]},
    }
    async with house(path / "home", database_url, identity=identity, **rest) as built:
        for name, tools in (("crm", ("read", "write")), ("mail", ("send",))):
            await built.gateway.registry.add(server(name, tools))
        await built.gateway.database.refresh_epochs()
        yield built


def server(name: str, tools: tuple[str, ...]) -> Candidate:
    return Candidate(
        tenant="default",
        name=name,
        family=Family.SERVER,
        kind="mcp",
        url="http://127.0.0.1:9/mcp",
        owner="operator",
        status=RegistrationStatus.ACTIVE,
        facts={"era": "modern"},
        tools=tuple(McpTool(tool, {"name": tool, "inputSchema": {"type": "object"}}) for tool in tools),
    )


async def listed(home: House, token: str) -> tuple[list[str], dict[str, Any]]:
    """Names of the tools, and the `_meta` of the list."""
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
    answer = await home.rpc("/mcp", token, "tools/list", {"_meta": CAPABILITIES}, **headers)
    assert answer.status_code == 200, answer.text
    result = answer.json()["result"]
    return [tool["name"] for tool in result["tools"]], result.get("_meta", {})


@pytest.mark.parametrize("provider", SHAPES)
async def test_a_token_opens_what_the_guide_says(tmp_path: Path, database_url: str, issuer: FakeIssuer, provider: str) -> None:
    claims = SHAPES[provider](int(time.time()))
    async with configured(tmp_path, database_url, issuer, guide(provider)) as home:
        token = issuer.mint({"typ": "JWT"}, **claims)
        subject, tools = OPENED[provider]
        assert (await listed(home, token))[0] == tools
        caller = await home.gateway.rulings.caller_resolver.authenticate(token, [home.url])
        assert (caller.principal.subject, caller.principal.issuer) == (subject, claims["iss"])


@pytest.mark.parametrize("provider", SHAPES)
async def test_without_the_guides_settings_the_same_token_is_refused_or_opens_nothing(
    tmp_path: Path, database_url: str, issuer: FakeIssuer, provider: str
) -> None:
    plain = {"other_audiences": [], "token_life": 3600, "subject_claim": "sub", "roles_claim": "roles", "default_roles": []}
    settings = guide(provider)
    async with configured(tmp_path, database_url, issuer, {"identity": settings["identity"]}, **plain) as home:
        token = issuer.mint({"typ": "JWT"}, **SHAPES[provider](int(time.time())))
        answer = await home.rpc("/mcp", token, "tools/list", {})
        assert answer.status_code == 401 or answer.json()["result"]["tools"] == []


# attack TOK-07
@pytest.mark.parametrize("provider", SHAPES)
async def test_a_token_for_another_api_of_the_provider_is_refused(
    tmp_path: Path, database_url: str, issuer: FakeIssuer, provider: str
) -> None:
    claims = SHAPES[provider](int(time.time()))
    named = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    async with configured(tmp_path, database_url, issuer, guide(provider)) as home:
        for aud in (["https://other.example.com", *named], named[1:], ["https://other.example.com"], "https://other.example.com"):
            token = issuer.mint({"typ": "JWT"}, **{**claims, "aud": aud})
            assert (await home.rpc("/mcp", token, "tools/list", {})).status_code == 401, aud


async def test_a_token_with_too_many_groups_is_refused(tmp_path: Path, database_url: str, issuer: FakeIssuer) -> None:
    source = {"endpoint": "https://graph.windows.net/11111111/users/c1b2a3d4/getMemberObjects"}
    overage = {"groups": ABSENT, "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": source}}
    async with configured(tmp_path, database_url, issuer, guide("Microsoft Entra ID")) as home:
        token = issuer.mint({"typ": "JWT"}, **{**entra(int(time.time())), **overage})
        assert (await home.rpc("/mcp", token, "tools/list", {})).status_code == 401


async def test_two_hundred_groups_fit_into_a_token(tmp_path: Path, database_url: str, issuer: FakeIssuer) -> None:
    groups = [f"{n:08x}-7a52-4e0e-9a1e-3d1f0c9b7a11" for n in range(200)]
    async with configured(tmp_path, database_url, issuer, guide("Microsoft Entra ID")) as home:
        token = issuer.mint({"typ": "JWT"}, **{**entra(int(time.time())), "groups": groups})
        assert len(token) > 11_000
        assert (await listed(home, token))[0] == ["crm_read", "crm_write"]


@pytest.mark.parametrize(
    ("claims", "reason", "told"),
    [
        ({"aud": [GATEWAY, "account", "billing"]}, "audience", "see audience and other_audiences"),
        ({"exp": int(time.time()) + 90_000}, "lifetime", "see token_life"),
        ({"sub": ABSENT}, "sub", "see subject_claim"),
    ],
)
async def test_the_log_says_which_setting_a_token_is_refused_by(
    tmp_path: Path, database_url: str, issuer: FakeIssuer, claims: dict[str, Any], reason: str, told: str
) -> None:
    async with configured(tmp_path, database_url, issuer, guide("Keycloak")) as home:
        sink = io.StringIO()
        configure_logging("info", str, sink)
        token = issuer.mint({"typ": "JWT"}, **{**keycloak(int(time.time())), **claims})
        assert (await home.rpc("/mcp", token, "tools/list", {})).status_code == 401
        line = next(json.loads(text) for text in sink.getvalue().splitlines() if '"refused"' in text)
        assert line["reason"] == reason
        assert line["detail"].startswith("a token of https://keycloak.example.com/realms/acme: ") and told in line["detail"]
        stranger = FakeIssuer(claims.get("iss", "https://keycloak.example.com/realms/acme"), now=time.time)
        await home.rpc("/mcp", stranger.mint({"typ": "JWT"}, **claims), "tools/list", {})
        assert "detail" not in json.loads(sink.getvalue().splitlines()[-1])  # nothing is told of what was not signed


# --- want of scopes, and of roles


async def test_an_empty_list_says_that_scopes_are_missing(tmp_path: Path, database_url: str, issuer: FakeIssuer) -> None:
    async with configured(tmp_path, database_url, issuer, guide("Auth0")) as home:
        claims = auth0(int(time.time()))
        for scope in ("openid profile", ABSENT):
            token = issuer.mint({"typ": "JWT"}, **{**claims, "scope": scope})
            tools, meta = await listed(home, token)
            assert (tools, meta[EMPTY]["reason_id"]) == ([], "scope-missing")
            assert "read:crm, write:crm" in meta[EMPTY]["detail"]
            servers = (await home.http.get("/api/servers", headers={"authorization": f"Bearer {token}"})).json()
            assert (servers["items"], servers["empty"]["reason_id"]) == ([], "scope-missing")
        tools, meta = await listed(home, issuer.mint({"typ": "JWT"}, **claims))
        assert tools and not meta


async def test_an_empty_list_says_that_roles_are_missing(tmp_path: Path, database_url: str, issuer: FakeIssuer) -> None:
    async with configured(tmp_path, database_url, issuer, guide("Okta")) as home:
        for groups, reason in (["Everyone"], "roles-missing"), (ABSENT, "roles-missing"):
            tools, meta = await listed(home, issuer.mint({"typ": "JWT"}, **{**okta(int(time.time())), "groups": groups}))
            assert (tools, meta[EMPTY]["reason_id"]) == ([], reason)


async def test_nothing_is_said_where_there_is_nothing(tmp_path: Path, database_url: str, issuer: FakeIssuer) -> None:
    settings = guide("Okta")
    settings["roles"] = {"Sales": ["tool:billing.*"]}
    async with configured(tmp_path, database_url, issuer, settings) as home:
        assert await listed(home, issuer.mint({"typ": "JWT"}, **okta(int(time.time())))) == ([], {})


async def test_a_refusal_asks_for_a_scope_that_the_issuer_knows(tmp_path: Path, database_url: str, issuer: FakeIssuer) -> None:
    async with configured(tmp_path, database_url, issuer, guide("Auth0")) as home:
        token = issuer.mint({"typ": "JWT"}, **auth0(int(time.time())))
        refused = await home.call(token, "/mcp/crm", "write", {})
        assert refused.status_code == 403
        assert 'error="insufficient_scope", scope="write:crm"' in refused.headers["www-authenticate"]
        metadata = (await home.http.get("/.well-known/oauth-protected-resource/mcp/crm")).json()
        assert metadata["scopes_supported"] == ["read:crm", "write:crm"]


async def test_no_scope_is_asked_for_that_the_issuer_lacks(tmp_path: Path, database_url: str, issuer: FakeIssuer) -> None:
    settings = guide("Auth0")
    settings["roles"] = {"sales": ["tool:*"]}
    async with configured(tmp_path, database_url, issuer, settings) as home:
        token = issuer.mint({"typ": "JWT"}, **auth0(int(time.time())))
        refused = await home.call(token, "/mcp/mail", "send", {})
        assert refused.status_code == 403
        assert refused.headers["www-authenticate"].endswith('error="insufficient_scope"')


async def test_no_scopes_are_named_for_an_issuer_without_a_map(tmp_path: Path, database_url: str, issuer: FakeIssuer) -> None:
    async with configured(tmp_path, database_url, issuer, guide("Keycloak")) as home:
        assert "scopes_supported" not in (await home.http.get("/.well-known/oauth-protected-resource/mcp")).json()
