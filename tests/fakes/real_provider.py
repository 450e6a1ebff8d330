"""A real identity provider, of another maker, where node and its packages can be had."""

import base64
import hashlib
import os
import re
import secrets
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx

from tests.fakes.npm import npm_packages
from tests.house.source import ROOT

SOURCE = ROOT / "tests" / "gateway" / "oauth" / "provider"
REDIRECT = "http://127.0.0.1/callback"


class RealProvider:
    """`issuer` is its address."""

    def __init__(self, issuer: str, resource: str) -> None:
        self.issuer = issuer
        self.resource = resource

    async def rotate(self) -> None:
        """A new key signs; the old one is published still."""
        await self._do("rotate")

    async def withdraw(self) -> None:
        """The old key is not published any more."""
        await self._do("withdraw")

    async def _do(self, what: str) -> None:
        async with httpx.AsyncClient(timeout=60) as http:
            assert (await http.post(f"{self.issuer}/test/{what}")).status_code == 200

    async def token(self, person: str) -> str:
        """The access token that a person gets who logs in."""
        return (await self.tokens(person))["access_token"]

    async def tokens(self, person: str) -> dict[str, str]:
        """All that a client gets when a person logs in: authorization code with PKCE, at the provider's own pages."""
        verifier, state = secrets.token_urlsafe(32), secrets.token_urlsafe(8)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {"client_id": "console", "response_type": "code", "redirect_uri": REDIRECT, "scope": "openid agent:* tool:*"}
        asked |= {"state": state, "code_challenge": challenge, "code_challenge_method": "S256", "resource": self.resource}
        async with httpx.AsyncClient(timeout=60) as http:
            answer = await http.get(f"{self.issuer}/auth", params=asked)
            back = await self._through_pages(http, answer, person)
            told = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
            assert (told["state"], told["iss"]) == (state, self.issuer), told
            form = {"grant_type": "authorization_code", "code": told["code"], "redirect_uri": REDIRECT}
            form |= {"client_id": "console", "code_verifier": verifier, "resource": self.resource}
            given = await http.post(f"{self.issuer}/token", data=form)
            assert given.status_code == 200, given.text
            return {name: str(value) for name, value in given.json().items()}

    async def log_in(self, url: str, person: str, redirect: str) -> str:
        """Where the provider sends a person back to who logs in at the authorization URL of another client."""
        async with httpx.AsyncClient(timeout=60) as http:
            return await self._through_pages(http, await http.get(url), person, redirect)

    async def _through_pages(self, http: httpx.AsyncClient, answer: httpx.Response, person: str, redirect: str = REDIRECT) -> str:
        """Follows redirections, logs in and consents, until it is led back to the client."""
        for _ in range(12):
            if answer.is_redirect:
                target = urljoin(str(answer.url), answer.headers["location"])
                if target.startswith(redirect):
                    return target
                answer = await http.get(target)
                continue
            assert answer.status_code == 200, answer.text
            action, prompt = re.search(r'action="([^"]+)"', answer.text), re.search(r'name="prompt" value="(\w+)"', answer.text)
            assert action is not None and prompt is not None, answer.text
            fields = {"prompt": prompt[1], **({"login": person, "password": "any"} if prompt[1] == "login" else {})}
            answer = await http.post(urljoin(str(answer.url), action[1]), data=fields)
        raise AssertionError("the provider leads nowhere")


@contextmanager
def real_provider(resource: str) -> Iterator[RealProvider]:
    """One that gives out tokens for `resource`."""
    folder = npm_packages(SOURCE, "the real identity provider")
    command = ["node", "provider.mjs", resource, REDIRECT]
    environment = {**os.environ, "NODE_NO_WARNINGS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            ready, _, _ = select.select([process.stdout], [], [], 30)
            issuer = process.stdout.readline().decode().strip() if ready else ""
            if not issuer.startswith("http://"):
                process.kill()
                raise AssertionError(f"the provider did not start: {process.stderr.read().decode()[-2000:]}")
            yield RealProvider(issuer, resource)
        finally:
            process.kill()
