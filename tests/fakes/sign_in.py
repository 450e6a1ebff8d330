"""A client of a person and the person's browser, as they sign in at a gateway."""

import base64
import hashlib
import re
import secrets
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.fakes.house import TRACEPARENT, House

REDIRECT = "http://127.0.0.1:43210/callback"


def challenge_of(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def request_in(page: httpx.Response) -> str:
    """The signed request in the form of a consent page."""
    found = re.search(r'name="request" value="([^"]+)"', page.text)
    assert found is not None, page.text
    return unescape(found[1])


def link_in(page: httpx.Response) -> str:
    found = re.search(r'<a href="([^"]+)"', page.text)
    assert found is not None, page.text
    return unescape(found[1])


def parameters_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


class Browser:
    """A browser with cookies of its own, which knows one gateway in this process."""

    def __init__(self, home: House) -> None:
        self.reach(home)

    def reach(self, home: House, cookies: httpx.Cookies | None = None) -> None:
        """From now on this process answers, as behind a load balancer."""
        self.home = home
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(home.app), base_url=home.url, timeout=60, headers={"traceparent": TRACEPARENT}, cookies=cookies
        )

    async def consent(self, page: httpx.Response, login: str = "development", user: str = "alice") -> httpx.Response:
        """Sends the form of a consent page."""
        form = {"request": request_in(page), "login": login, "user": user}
        return await self.http.post("/oauth/consent", data=form, headers={"origin": self.home.url})


class Client:
    """An OAuth client of people. `id` is set by `register`, or is one that is known otherwise."""

    def __init__(self, home: House, client_id: str = "", redirect: str = REDIRECT) -> None:
        self.home = home
        self.id = client_id
        self.redirect = redirect
        self.verifier = secrets.token_urlsafe(32)

    async def register(self, **metadata: Any) -> httpx.Response:
        document = {"client_name": "Test client", "redirect_uris": [self.redirect], "token_endpoint_auth_method": "none", **metadata}
        answer = await self.home.http.post("/oauth/register", json=document)
        self.id = answer.json().get("client_id", "")
        return answer

    def request(self, **changes: str) -> dict[str, str]:
        """The parameters of an authorization request; a change to an empty text leaves one out."""
        asked = {"response_type": "code", "client_id": self.id, "redirect_uri": self.redirect, "state": "the state"}
        asked |= {"code_challenge": challenge_of(self.verifier), "code_challenge_method": "S256", "resource": f"{self.home.url}/mcp"}
        return {name: value for name, value in {**asked, **changes}.items() if value}

    async def authorize(self, browser: Browser, **changes: str) -> httpx.Response:
        return await browser.http.get("/oauth/authorize", params=self.request(**changes))

    async def code(self, user: str = "alice", **changes: str) -> str:
        """The code that the client gets when a development user signs in and consents."""
        browser = Browser(self.home)
        page = await self.authorize(browser, **changes)
        assert page.status_code == 200, page.text
        answer = parameters_of(link_in(await browser.consent(page, user=user)))
        assert (answer["state"], answer["iss"]) == ("the state", self.home.url), answer
        return answer["code"]

    async def post(self, **form: str) -> httpx.Response:
        return await self.home.http.post("/oauth/token", data={"client_id": self.id, **form})

    async def redeem(self, code: str, **changes: str) -> httpx.Response:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self.redirect, "code_verifier": self.verifier}
        return await self.post(**{name: value for name, value in {**form, **changes}.items() if value})

    async def refresh(self, token: str, **more: str) -> httpx.Response:
        return await self.post(grant_type="refresh_token", refresh_token=token, **more)

    async def tokens(self, user: str = "alice", **changes: str) -> dict[str, Any]:
        """All that a client gets that has registered itself."""
        if not self.id:
            assert (await self.register()).status_code == 201
        answer = await self.redeem(await self.code(user, **changes))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


async def is_admitted(home: House, token: str, path: str = "/api/whoami") -> bool:
    """Whether a token opens a path: `/mcp` lists the tools, another one is got."""
    headers = {"authorization": f"Bearer {token}"}
    if path != "/mcp":
        return (await home.http.get(path, headers=headers)).status_code == 200
    asked = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    return "result" in (await home.rpc("/mcp", token, "tools/list", {"_meta": meta}, **asked)).json()


async def device_tokens(home: House, user: str = "alice", through: House | None = None, **form: str) -> dict[str, Any]:
    """The tokens of the command line, whose code a person has typed in a browser, which another process may answer."""
    begun = (await home.http.post("/oauth/device", data={"client_id": "interlock-cli", "resource": home.url, "scope": "*", **form})).json()
    browser = Browser(through or home)
    page = await browser.http.get("/oauth/device", params={"user_code": begun["user_code"]})
    assert (await browser.consent(page, user=user)).status_code == 200
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": begun["device_code"]}
    answer = await Client(home, "interlock-cli").post(**form)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())
