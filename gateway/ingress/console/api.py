"""Requests of the console to /api, within the process and in the name of the session's person: the same filters, the same refusals."""

import asyncio
import json
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import structlog

from gateway.ingress.http.asgi import Receive, Scope, Send
from gateway.ingress.http.authentication import SESSION_CALLER_KEY
from policies.callers import Caller
from policies.strict_json import run_off_loop

T = TypeVar("T")
JSON: Final = "application/json"
log = structlog.get_logger()


class ApiRefusal(Exception):
    """An answer of /api that is no success. `problem` is its problem document (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail", status)))
        self.status = status
        self.problem = problem


@dataclass(frozen=True, slots=True)
class PagePart:
    """One answer of several on a page. Either is set: a refused part does not take the page with it."""

    document: Any = None
    refusal: ApiRefusal | None = None

    @property
    def items(self) -> list[Any]:
        """The items of a list; none of a refused one."""
        return list(self.document["items"]) if self.document else []

    @property
    def count(self) -> str:
        """How many items there are as text, with a plus where the list goes on."""
        return f"{len(self.items)}{'+' if self.document and self.document.get('next') else ''}"


def api_path(*segments: str) -> str:
    """Returns a path below /api. A segment that would change the path is quoted."""
    return "/api/" + "/".join(quote(segment, safe="-._~:@") for segment in segments)


def with_query(path: str, query: Mapping[str, str]) -> str:
    """Returns the path with those members of the query that are not empty."""
    wanted = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(wanted)}" if wanted else path


class ApiClient:
    """Calls the routes of /api as `caller`."""

    def __init__(self, app: Any, caller: Caller, scope: Scope) -> None:
        self._app = app
        self._caller = caller
        self._scope = scope

    async def get(self, path: str, **query: str) -> Any:
        """Returns the document at a path. Raises ApiRefusal."""
        return await self.request("GET", path, query=query)

    async def request(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Returns the document of an answer, None of one without a body. Raises ApiRefusal."""
        content = b"" if body is None else json.dumps(body).encode()
        given = {"accept": JSON, **({"content-type": JSON} if content else {}), **(headers or {})}
        answer = _CollectedAnswer()
        await self.forward(self._inner_scope(method, with_query(path, query or {}), given), answer.receiver(content), answer.send)
        return await run_off_loop(answer.read_document, answer.content)

    async def part(self, path: str, **query: str) -> PagePart:
        """Returns the document at a path, or its refusal."""
        try:
            return PagePart(await self.get(path, **query))
        except ApiRefusal as refusal:
            return PagePart(refusal=refusal)

    async def part_of(self, method: str, path: str, body: Any) -> PagePart:
        """Returns the answer to a request with a body, or its refusal."""
        try:
            return PagePart(await self.request(method, path, body))
        except ApiRefusal as refusal:
            return PagePart(refusal=refusal)

    async def stream(self, path: str, query: str, headers: Mapping[str, str], *, receive: Receive, send: Send) -> None:
        """Answers a request of the browser with the answer of /api, as it comes."""
        await self.forward(self._inner_scope("GET", f"{path}?{query}" if query else path, headers), receive, send)

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs one request. The framework raises an error again that it has answered already."""
        has_begun = False

        async def send_on(message: Any) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception:
            if not has_begun:
                raise
            log.warning("console_request_failed", path=scope["path"])

    def _inner_scope(self, method: str, target: str, headers: Mapping[str, str]) -> Scope:
        path, _, query = target.partition("?")
        host = [(name, value) for name, value in self._scope["headers"] if name == b"host"]
        return {
            **{name: self._scope.get(name) for name in ("type", "asgi", "http_version", "scheme", "client", "server")},
            "state": {},
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [*host, *((name.encode(), value.encode()) for name, value in headers.items())],
            SESSION_CALLER_KEY: self._caller,
        }


TOO_DEEP = "What this page shows is nested too deeply for a page; its JSON has it."


class _CollectedAnswer:
    """What the framework sends, collected."""

    def __init__(self) -> None:
        self._status = 500
        self._chunks: list[bytes] = []

    def receiver(self, content: bytes) -> Receive:
        """Returns the body of the request, and then waits, since nobody disconnects."""
        messages = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            return await asyncio.Event().wait()

        return receive

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        else:
            self._chunks.append(message.get("body", b""))

    @property
    def content(self) -> bytes:
        """Returns the body."""
        return b"".join(self._chunks)

    def read_document(self, content: bytes) -> Any:
        """Returns the document of the body `content`. Raises ApiRefusal."""
        try:
            document = json.loads(content) if content else None
        except RecursionError:  # Python's reader goes less deep than the gateway's
            raise ApiRefusal(422, {"title": "Nested too deeply", "detail": TOO_DEEP}) from None
        if self._status >= 400:
            raise ApiRefusal(self._status, document if isinstance(document, dict) else {"title": "Failed", "status": self._status})
        return document


async def gather(*reads: Awaitable[T]) -> list[T]:
    """Runs reads of one page at the same time."""
    return list(await asyncio.gather(*reads))
