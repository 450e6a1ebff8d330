"""Questions to /api, as a person."""

import json
from typing import Any

import httpx

from tests.fakes.house import House


class Reception:
    """An empty user asks without a token."""

    def __init__(self, home: House) -> None:
        self.home = home

    async def ask(self, method: str, path: str, user: str = "admin", body: Any = None, match: str = "", **token: Any) -> httpx.Response:
        """`body`: JSON, or bytes as they are. `match`: If-Match. `token`: what the bearer token is narrowed to."""
        headers = {"authorization": f"Bearer {token.get('token') or self.home.token(user, **token)}"} if user else {}
        headers |= {"if-match": match} if match else {}
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        return await self.home.http.request(method, path, content=content, headers=headers)

    async def approve(self, path: str, user: str = "admin", body: Any = None) -> httpx.Response:
        """As it stands now: what is at `path` is looked at, and approved by its tag."""
        return await self.ask("POST", f"{path}/approve", user, body, (await self.ask("GET", path, user)).headers["etag"])

    async def post(self, path: str, user: str = "admin", **body: Any) -> httpx.Response:
        return await self.ask("POST", path, user, body)
