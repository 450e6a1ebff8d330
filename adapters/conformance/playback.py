"""Recorded responses in place of the network: each request gets the recorded answer and is compared with the recorded request."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from adapters.conformance.recordings import Change, body_of, whole
from adapters.contract import Unreachable
from adapters.upstream.egress import Fetched

Answer = tuple[int, Mapping[str, str], bytes]


class Playback:
    """An egress that answers as recorded, in the order of the recording for each method and path.

    `said` is an expectation: `ours` names recorded ids that stand for ids of the gateway's choosing, `ignore` members of bodies that
    may differ, `prefix` what the agent's URL has of each recorded path, `skip` numbers of exchanges that are left out. `problems`
    gets every request that is not the recorded one, `used` the number of every exchange that was asked for. `change` changes streamed
    bodies; with `cut` they break after so many bytes, and no later than in their middle.
    """

    def __init__(
        self, exchanges: Sequence[dict[str, Any]], said: Mapping[str, Any], change: Change = whole, cut: int | None = None
    ) -> None:
        self.left = [each for each in exchanges if each["seq"] not in said.get("skip", ())]
        self.cut = cut
        self.problems: list[str] = []
        self.used: set[int] = set()
        self.headers: list[Mapping[str, str]] = []
        self._ours = set(said.get("ours", ()))
        self._ignore = set(said.get("ignore", ()))
        self._prefix = str(said.get("prefix", ""))
        self._change = change

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, **_: Any) -> Fetched:
        response = self._next(method, url, headers, body)
        return Fetched(response["status"], _small(response["headers"]), body_of(response))

    @asynccontextmanager
    async def stream(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, **_: Any) -> AsyncIterator["Played"]:
        response = self._next(method, url, headers, body)
        raw = body_of(response)
        if self.cut is not None:
            part = raw[: min(self.cut, len(raw) // 2)]
            yield Played(response["status"], response["headers"], self._change(part), broken=True)
        else:
            yield Played(response["status"], response["headers"], self._change(raw))

    def _next(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> dict[str, Any]:
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        self.headers.append(headers)
        for place, each in enumerate(self.left):
            request = each["request"]
            if request["method"] == method and self._matches(request["path"], self._prefix + path):
                self.left.pop(place)
                self.used.add(each["seq"])
                self._compare(request, body)
                response: dict[str, Any] = each["response"]
                return response
        self.problems.append(f"nothing recorded for {method} {path}")
        return {"status": 404, "headers": {"content-type": "application/json"}, "json": {}}

    def _matches(self, recorded: str, path: str) -> bool:
        there, here = recorded.split("/"), path.split("/")
        return len(there) == len(here) and all(a == b or a in self._ours for a, b in zip(there, here, strict=True))

    def _compare(self, request: Mapping[str, Any], body: bytes | None) -> None:
        wanted, given = request.get("json"), json.loads(body) if body else None
        for path in self._differences(wanted, given, ""):
            self.problems.append(f"{request['method']} {request['path']}: {path}")

    def _differences(self, wanted: Any, given: Any, path: str) -> Iterator[str]:
        """Where a body lacks a recorded member or has another value there; a body may have more members than the recorded one."""
        if isinstance(wanted, dict) and isinstance(given, dict):
            for name, value in wanted.items():
                if name not in self._ignore:
                    yield from self._differences(value, given.get(name), f"{path}.{name}")
        elif isinstance(wanted, list) and isinstance(given, list) and len(wanted) == len(given):
            for place, (one, other) in enumerate(zip(wanted, given, strict=True)):
                yield from self._differences(one, other, f"{path}[{place}]")
        elif wanted != given and wanted not in (None, {}) and not (isinstance(wanted, str) and wanted in self._ours):
            yield f"{path or 'body'} is {given!r}, recorded was {wanted!r}"


class FixedAnswer:
    """An egress that gives the same answer to every request."""

    def __init__(self, answer: Callable[[], Answer]) -> None:
        self._answer = answer

    async def request(self, method: str, url: str, **_: Any) -> Fetched:
        return Fetched(*self._answer())

    @asynccontextmanager
    async def stream(self, method: str, url: str, **_: Any) -> AsyncIterator["Played"]:
        status, headers, body = self._answer()
        yield Played(status, headers, [body])


class Played:
    """A response that arrives in chunks; a broken one ends as a connection that was cut."""

    def __init__(self, status: int, headers: Mapping[str, str], chunks: list[bytes], broken: bool = False) -> None:
        self.status = status
        self.headers = headers
        self._chunks = chunks
        self._broken = broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        if self._broken:
            raise Unreachable("the upstream can't be reached", "the connection was cut")

    async def read(self, limit: int = 0) -> bytes:
        return b"".join(self._chunks)


def _small(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
