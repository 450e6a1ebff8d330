"""Exchanges with agents of vendors that nobody recorded: written by hand, from documentation, and played as recordings are."""

import json as codec
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adapters.contract import Answer, Event, Turn, VendorRef
from adapters.upstream.guarded import GuardedAdapter
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, build_vendor_agent, parse_options
from adapters.vendors.sdk.connection import VendorConnection, VendorEndpoint
from tests.adapters.replay import CREDENTIAL, URL, ReplayEgress, build_message, call_of, gathered, vendor_of

SESSION = "5f0c2a52-0000-5000-8000-000000000001"
JSON = {"content-type": "application/json"}


def exchange(
    method: str, path: str, body: Any = None, status: int = 200, json: Any = None, sse: Sequence[Any] | None = None
) -> dict[str, Any]:
    """A request that has to be made, and its answer: one JSON, or a stream of them."""
    request = {"method": method, "path": path, "json": body}
    if sse is None:
        return {"seq": -1, "request": request, "response": {"status": status, "headers": JSON, "json": json}}
    raw = "".join(f"data: {codec.dumps(each)}\n\n" for each in sse)
    return {"seq": -1, "request": request, "response": {"status": 200, "headers": {"content-type": "text/event-stream"}, "stream_raw": raw}}


class Seen(ReplayEgress):
    """Keeps which addresses were asked, and which of them got the credential."""

    def __init__(self, *talk: dict[str, Any]) -> None:
        super().__init__(talk, {})
        self.seen: list[tuple[str, bool]] = []

    def _next_response(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> dict[str, Any]:
        self.seen.append((url, CREDENTIAL in headers.values()))
        return super()._next_response(method, url, headers, body)


async def asked(kind: str, upstream: dict[str, Any], talk: Iterable[dict[str, Any]] | ReplayEgress, **turn: Any) -> list[Event]:
    """The events of one turn. `send`, `ref`, `answers`, `stream`, `ours`: as of a replay; `url`: the agent's."""
    egress = talk if isinstance(talk, ReplayEgress) else ReplayEgress(tuple(talk), {"ours": turn.get("ours", ())})
    agent = GuardedAdapter(build_vendor_agent(vendor_of(kind), egress))  # type: ignore[arg-type]  # it does what is needed
    answers: tuple[Answer, ...] = turn.get("answers", ())
    ref: VendorRef | None = turn.get("ref")
    message = build_message(turn.get("send", {"text": "hello"}))
    call = call_of(kind, upstream, turn.get("url", URL))
    events = await gathered(agent.run(Turn(message, ref, turn.get("stream", True), answers=answers, session=SESSION), call))
    if not isinstance(talk, ReplayEgress):
        assert egress.problems == []
        assert egress.remaining == [], "not everything was asked"
    return events


async def described(kind: str, upstream: dict[str, Any], talk: Iterable[dict[str, Any]]) -> AgentFacts:
    """What an agent is said to be."""
    return await vendor_of(kind).describe(_line(kind, upstream, talk))


async def canceled(kind: str, upstream: dict[str, Any], talk: Iterable[dict[str, Any]], ref: VendorRef) -> CancelOutcome:
    """What came of a cancellation."""
    return await vendor_of(kind).cancel(ref, _line(kind, upstream, talk))


def _line(kind: str, upstream: dict[str, Any], talk: Iterable[dict[str, Any]]) -> VendorConnection[Any]:
    call = call_of(kind, upstream)
    place = VendorEndpoint(call.target.url, upstream, call.headers, call.deadline, "u-1", SESSION)
    egress: Any = ReplayEgress(tuple(talk), {})
    return VendorConnection(egress, place, parse_options(vendor_of(kind), upstream))


async def polled(kind: str, upstream: dict[str, Any], talk: Iterable[dict[str, Any]], ref: VendorRef) -> list[Event]:
    """What came of looking after a task that waits."""
    vendor: Any = vendor_of(kind)
    return [event async for event in vendor.poll(ref, _line(kind, upstream, talk))]
