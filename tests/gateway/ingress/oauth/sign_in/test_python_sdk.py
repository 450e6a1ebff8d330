"""The Python SDK of MCP signs a person in by itself: it has the URL of the server, and shows the person a page."""

from typing import Any

import httpx2
import pytest
from mcp.client import Client as McpClient
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from tests.fakes.house import House
from tests.fakes.sign_in import Browser, link_in, parameters_of

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Storage(TokenStorage):
    """What the SDK keeps."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Person:
    """Who consents in a browser, as the SDK's handlers."""

    def __init__(self, home: House) -> None:
        self.browser = Browser(home)
        self.asked: dict[str, str] = {}
        self.answer: dict[str, str] = {}

    async def visit(self, url: str) -> None:
        self.asked = parameters_of(url)
        page = await self.browser.http.get(url)
        self.answer = parameters_of(link_in(await self.browser.consent(page)))

    async def come_back(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(code=self.answer["code"], state=self.answer["state"], iss=self.answer["iss"])


def provider_of(home: House, storage: Storage, person: Person) -> OAuthClientProvider:
    metadata: dict[str, Any] = {"client_name": "SDK", "redirect_uris": ["http://localhost:3030/callback"]}
    return OAuthClientProvider(
        f"{home.url}/mcp", OAuthClientMetadata(**metadata), storage, redirect_handler=person.visit, callback_handler=person.come_back
    )


async def listed(home: House, storage: Storage, person: Person) -> list[str]:
    async with (
        httpx2.AsyncClient(auth=provider_of(home, storage, person), timeout=60) as http,
        McpClient(streamable_http_client(f"{home.url}/mcp", http_client=http)) as client,
    ):
        return [tool.name for tool in (await client.list_tools()).tools]


async def test_the_sdk_signs_a_person_in_with_the_url_alone(open_home: House) -> None:
    await open_home.server("inventory", "check")
    storage, person = Storage(), Person(open_home)
    assert "inventory_check" in await listed(open_home, storage, person)
    assert (person.asked["resource"], person.asked["code_challenge_method"]) == (f"{open_home.url}/mcp", "S256")
    assert "tool:*" in person.asked["scope"] and storage.client is not None and storage.client.client_id.startswith("dyn_")
    person.asked = {}
    assert "inventory_check" in await listed(open_home, storage, person)
    assert person.asked == {}, "the stored tokens serve the next connection"
