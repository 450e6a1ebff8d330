"""What is wrong with the sign-in of people, and what is said of it before anybody tries to sign in."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.openid_provider import SECRET, OpenIdProvider, openid_provider
from tests.fakes.ports import free_port
from tests.gateway.cli.conftest import CommandLine

ISSUER = {"issuer": "https://idp.example", "jwks_url": "https://idp.example/jwks"}
CORP = {"issuer": "https://idp.example", "client_id": "interlock"}


def with_provider(**more: Any) -> dict[str, Any]:
    return {"identity": {"issuers": [ISSUER]}, "sign_in": {"providers": {"corp": {**CORP, **more}}}}


def with_client(uri: str, **more: Any) -> dict[str, Any]:
    return {"sign_in": {"clients": {"board": {"name": "Board", "redirect_uris": [uri]}}, **more}}


REFUSED = [
    (with_provider(issuer="https://other.example"), "sign_in.providers.corp.issuer: https://other.example is not one of identity.issuers"),
    (with_provider(client_secret="env:NOT_SET"), "sign_in.providers.corp.client_secret: the environment has no variable NOT_SET"),
    (with_provider(client_secret="file:nowhere"), "sign_in.providers.corp.client_secret: the file nowhere does not exist or is empty"),
    (with_provider(client_secret="plain"), "sign_in.providers.corp.client_secret: write env:NAME or file:PATH"),
    (with_provider(auth_method="client_secret_basic"), "sign_in.providers.corp.auth_method: client_secret_basic needs a client_secret"),
    (with_provider(scopes=["profile"]), "sign_in.providers.corp.scopes: without openid the provider returns no ID token"),
    (with_client("http://board.example/cb"), "sign_in: clients.board.redirect_uris: 'http://board.example/cb': a redirect URI is https"),
    (
        with_client("https://board.example/cb#x"),
        "clients.board.redirect_uris: 'https://board.example/cb#x': a redirect URI has at",
    ),
    (with_client("board://cb"), "clients.board.redirect_uris: 'board://cb': redirect URIs of applications' own schemes have to be listed"),
    ({"sign_in": {"redirect_uris": ["https://board.example/cb"]}}, "https is no application's own scheme"),
    ({"sign_in": {"redirect_uris": ["javascript:/alert"]}}, "javascript is no application's own scheme"),
    ({"sign_in": {"redirect_uris": ["board"]}}, "'board': write the whole redirect URI of the application"),
    ({"sign_in": {"redirect_uris": ["board:*"]}}, "'board:*': write the whole redirect URI of the application"),
]
DOUBTED = [
    (
        with_provider() | {"sign_in": {**with_provider()["sign_in"], "development": "on"}},
        "sign_in.development: the development issuer is off",
    ),
    (with_client("https://board.example/cb", development="off"), "sign_in.clients: nobody can sign in"),
    ({"server": {"public_url": "http://gw.example"}, "sign_in": {"development": "on"}}, "server.public_url: people sign in at http://gw"),
]


def write(folder: Path, settings: Mapping[str, Any]) -> None:
    (folder / "interlock.yaml").write_text(yaml.safe_dump(dict(settings)))


def findings(ran: Any) -> dict[str, tuple[bool, str, str]]:
    return {one["name"]: (one["ok"], one["detail"], one["todo"]) for one in ran.json["checks"]}


@pytest.mark.parametrize(("settings", "said"), REFUSED)
def test_a_gateway_where_sign_in_can_not_work_does_not_start(
    interlock: CommandLine, tmp_path: Path, settings: Mapping[str, Any], said: str
) -> None:
    write(tmp_path, settings)
    ran = interlock("serve", "--port", str(free_port()))
    assert ran.code == 78 and said in " ".join(ran.err.split())
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(("settings", "said"), DOUBTED)
def test_settings_of_sign_in_without_effect_are_doubted(
    interlock: CommandLine, tmp_path: Path, settings: Mapping[str, Any], said: str
) -> None:
    write(tmp_path, settings)
    doubts = [f"{name}: {detail}" for name, (ok, detail, todo) in findings(interlock("check", "--json")).items() if ok and todo]
    assert any(doubt.startswith(said) for doubt in doubts), doubts


def test_a_good_client_and_a_good_scheme_raise_no_doubt(interlock: CommandLine, tmp_path: Path) -> None:
    write(tmp_path, with_client("com.example.board:/cb", redirect_uris=["com.example.board:/cb"]))
    ran = interlock("check", "--json")
    assert ran.code == 0 and not [name for name in findings(ran) if name.startswith("sign_in")]


async def asked(interlock: CommandLine, folder: Path, provider: OpenIdProvider, **more: Any) -> tuple[bool, str, str]:
    """What the check finds at the provider."""
    write(folder, provider.settings(**more))
    return findings(await asyncio.to_thread(interlock, "check", "--json"))["sign_in.providers.corp"]


async def test_the_check_asks_the_provider_itself(interlock: CommandLine, tmp_path: Path) -> None:
    interlock.environment["PROVIDER_SECRET"] = SECRET
    async with openid_provider() as provider:
        ok, detail, todo = await asked(interlock, tmp_path, provider)
        assert (ok, todo) == (True, "") and detail.startswith("people log in at 127.0.0.1")
        provider.metadata = {"scopes_supported": ["openid"]}
        ok, detail, todo = await asked(interlock, tmp_path, provider)
        assert ok and "no refresh token" in detail and todo
        provider.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
        ok, detail, todo = await asked(interlock, tmp_path, provider, auth_method="client_secret_basic")
        assert ok and "client_secret_post" in todo
        provider.metadata = {"authorization_endpoint": ""}
        assert (await asked(interlock, tmp_path, provider))[0] is False
        provider.metadata = {"issuer": "https://evil.example"}
        assert (await asked(interlock, tmp_path, provider))[0] is False
    ok, detail, todo = await asked(interlock, tmp_path, provider)
    assert not ok and "can't be used" in detail and "issuer" in todo
