"""Plays recorded responses instead of using the network, and compares each request with the recorded one."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from adapters.conformance.recordings import BodyTransform, in_one_chunk, recorded_body
from adapters.contract import Unreachable
from adapters.upstream.egress import HttpResponse
from adapters.vendors.sdk.connection import lowercase_names

FixedResponse = tuple[int, Mapping[str, str], bytes]


class PlaybackEgress:
    """An egress client that answers with recorded responses, in recorded order for each method and path.

    `expected` is an expectation: `ours` names recorded ids that stand for ids of the gateway's choice, `ignore` members of bodies that may
    differ, `prefix` the part of each recorded path that belongs to the agent's URL, `skip` numbers of omitted exchanges. `problems`
    collects deviating requests, `used` the numbers of requested exchanges. `transform` changes streamed bodies; with `cut_after` they
    break after that many bytes, at the latest in their middle.
    """

    def __init__(
        self,
        exchanges: Sequence[dict[str, Any]],
        expected: Mapping[str, Any],
        transform: BodyTransform = in_one_chunk,
        cut_after: int | None = None,
    ) -> None:
        self.remaining = [each for each in exchanges if each["seq"] not in expected.get("skip", ())]
        self.cut_after = cut_after
        self.problems: list[str] = []
        self.used: set[int] = set()
        self.request_headers: list[Mapping[str, str]] = []
        self._gateway_ids = set(expected.get("ours", ()))
        self._ignored_members = set(expected.get("ignore", ()))
        self._path_prefix = str(expected.get("prefix", ""))
        self._transform = transform

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, **_: Any) -> HttpResponse:
        response = self._next_response(method, url, headers, body)
        return HttpResponse(response["status"], lowercase_names(response["headers"]), recorded_body(response))

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, **_: Any
    ) -> AsyncIterator["RecordedStream"]:
        response = self._next_response(method, url, headers, body)
        raw = recorded_body(response)
        if self.cut_after is not None:
            part = raw[: min(self.cut_after, len(raw) // 2)]
            yield RecordedStream(response["status"], response["headers"], self._transform(part), is_broken=True)
        else:
            yield RecordedStream(response["status"], response["headers"], self._transform(raw))

    def _next_response(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> dict[str, Any]:
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        self.request_headers.append(headers)
        for place, each in enumerate(self.remaining):
            request = each["request"]
            if request["method"] == method and self._matches(request["path"], self._path_prefix + path):
                self.remaining.pop(place)
                self.used.add(each["seq"])
                self._compare_body(request, body)
                response: dict[str, Any] = each["response"]
                return response
        self.problems.append(f"nothing recorded for {method} {path}")
        return {"status": 404, "headers": {"content-type": "application/json"}, "json": {}}

    def _matches(self, recorded: str, path: str) -> bool:
        recorded_steps, sent_steps = recorded.split("/"), path.split("/")
        return len(recorded_steps) == len(sent_steps) and all(
            a == b or a in self._gateway_ids for a, b in zip(recorded_steps, sent_steps, strict=True)
        )

    def _compare_body(self, request: Mapping[str, Any], body: bytes | None) -> None:
        wanted, sent_document = request.get("json"), json.loads(body) if body else None
        for path in self._differences(wanted, sent_document, ""):
            self.problems.append(f"{request['method']} {request['path']}: {path}")

    def _differences(self, recorded: Any, sent: Any, path: str) -> Iterator[str]:
        """Yields where a body lacks a recorded member or has another value. A body may have additional members."""
        if isinstance(recorded, dict) and isinstance(sent, dict):
            for name, value in recorded.items():
                if name not in self._ignored_members:
                    yield from self._differences(value, sent.get(name), f"{path}.{name}")
        elif isinstance(recorded, list) and isinstance(sent, list) and len(recorded) == len(sent):
            for place, (one, other) in enumerate(zip(recorded, sent, strict=True)):
                yield from self._differences(one, other, f"{path}[{place}]")
        elif recorded != sent and recorded not in (None, {}) and not (isinstance(recorded, str) and recorded in self._gateway_ids):
            yield f"{path or 'body'} is {sent!r}, recorded was {recorded!r}"


class FixedResponseEgress:
    """An egress client that gives the same response to every request."""

    def __init__(self, answer: Callable[[], FixedResponse]) -> None:
        self._answer = answer

    async def request(self, method: str, url: str, **_: Any) -> HttpResponse:
        return HttpResponse(*self._answer())

    @asynccontextmanager
    async def stream(self, method: str, url: str, **_: Any) -> AsyncIterator["RecordedStream"]:
        status, headers, body = self._answer()
        yield RecordedStream(status, headers, [body])


class RecordedStream:
    """A response in chunks; a broken one ends like a lost connection."""

    def __init__(self, status: int, headers: Mapping[str, str], chunks: list[bytes], is_broken: bool = False) -> None:
        self.status = status
        self.headers = headers
        self._chunks = chunks
        self._is_broken = is_broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        if self._is_broken:
            raise Unreachable("the upstream can't be reached", "the connection was cut")

    async def read(self, limit: int = 0) -> bytes:
        return b"".join(self._chunks)
