"""Calls, turns and an egress for adapters under test, without a gateway around them."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from adapters.contract import ArtifactPiece, Ask, Call, Done, Event, Replied, Turn, VendorRef
from adapters.task import Message, Part, Role, text_of
from adapters.upstream.egress import HttpResponse
from policies.delegation.chain import Delegation, Principal
from policies.delegation.permissions import ALL_PERMISSIONS
from policies.delegation.rulings import Act, Decision, Grant
from registry.cards.card import Family, Registration, RegistrationStatus

_ACT = Act("invokeAgent", "Agent", "sales", "agent:sales", "sales")
GRANT = Grant(
    Decision("dec_1", 0, True, "allowed", "default|test|alice", (), (), _ACT),
    Delegation(Principal("default", "test", "alice"), ALL_PERMISSIONS, 2e9),
)


def call_to(url: str, seconds: float = 60.0, **facts: Any) -> Call:
    """A call to an agent whose card said `facts`: 1.0 with streaming, unless told otherwise."""
    known = {"version": "1.0", "streaming": True, "interface": url, "tenant": "", **facts}
    target = Registration(
        tenant="default",
        name="sales",
        family=Family.AGENT,
        kind="a2a",
        status=RegistrationStatus.ACTIVE,
        url=url,
        owner="",
        ceiling=("*",),
        delegation="bearer",
        upstream={},
        facts=known,
        client_id="",
        card=None,
        card_text="{}",
        tools=(),
        card_hash="",
        created=0,
        updated=0,
    )
    return Call(GRANT, target, asyncio.get_running_loop().time() + seconds, {"Authorization": "Bearer hop"})


def turn(text: str, ref: VendorRef | None = None, stream: bool = False) -> Turn:
    """A user's message `m-1` with ids of ours, which no agent may see."""
    message = Message("m-1", Role.USER, (Part(text=text),), context_id="ctx_ours", task_id="task_ours")
    return Turn(message, ref, stream)


class YieldedBatches:
    """The running turn of a fake that yields batches of events."""

    def __init__(self, batches: AsyncGenerator[Sequence[Event], None]) -> None:
        self._batches = batches

    async def next_events(self) -> Sequence[Event] | None:
        return await anext(self._batches, None)

    async def aclose(self) -> None:
        await self._batches.aclose()


def said(events: list[Event]) -> str:
    """The text of a turn: of its artifacts, then of its answer."""
    parts = [event.artifact.parts for event in events if isinstance(event, ArtifactPiece)]
    parts += [event.message.parts for event in events if isinstance(event, Replied | Done | Ask) and event.message]
    return " ".join(text_of(part) for part in parts)


class ScriptedEgress:
    """Answers each JSON-RPC request with the next of `answers`, made from the request: (status, content type, chunks)."""

    def __init__(self, *answers: Callable[[dict[str, Any]], tuple[int, str, list[bytes]]]) -> None:
        self._answers = list(answers)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []

    @property
    def methods(self) -> list[str]:
        return [request["method"] for request in self.requests]

    def _next(self, headers: Mapping[str, str], body: bytes | None) -> tuple[int, str, list[bytes]]:
        self.requests.append(json.loads(body or b"{}"))
        self.headers.append(headers)
        return self._answers.pop(0)(self.requests[-1])

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, **_: Any) -> HttpResponse:
        status, kind, chunks = self._next(headers, body)
        return HttpResponse(status, {"content-type": kind}, b"".join(chunks))

    @asynccontextmanager
    async def stream(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes, **_: Any) -> AsyncIterator["_Streamed"]:
        status, kind, chunks = self._next(headers, body)
        yield _Streamed(status, {"content-type": kind}, chunks)


class _Streamed:
    def __init__(self, status: int, headers: Mapping[str, str], chunks: list[bytes]) -> None:
        self.status = status
        self.headers = headers
        self._chunks = iter(chunks)

    async def next_chunk(self) -> bytes:
        return next(self._chunks, b"")

    def pause_until(self, when: float) -> None:
        pass

    async def read(self, limit: int = 0) -> bytes:
        return b"".join(self._chunks)


def answers(result: Any) -> Callable[[dict[str, Any]], tuple[int, str, list[bytes]]]:
    """A JSON-RPC result."""
    return lambda request: (200, "application/json", [json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()])


def refuses(code: int, text: str = "the peer's own words") -> Callable[[dict[str, Any]], tuple[int, str, list[bytes]]]:
    """A JSON-RPC error."""
    error = {"code": code, "message": text}
    return lambda request: (200, "application/json", [json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode()])


def streams(*results: Any) -> Callable[[dict[str, Any]], tuple[int, str, list[bytes]]]:
    """One event per result, and the end of the body."""
    return lambda request: (
        200,
        "text/event-stream",
        [b"data: " + json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode() + b"\n\n" for result in results],
    )


def sends(status: int, kind: str, body: bytes) -> Callable[[dict[str, Any]], tuple[int, str, list[bytes]]]:
    """Any answer at all."""
    return lambda _: (status, kind, [body])
