"""Recorded exchanges with agents of vendors, played back to their adapters, whole or changed on the way."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from adapters.catalog import VENDORS
from adapters.contract import (
    ENDINGS,
    Answer,
    ArtifactPiece,
    Ask,
    Call,
    Canceled,
    Done,
    Event,
    Failed,
    Progress,
    Prompt,
    Ref,
    Replied,
    Turn,
    Unreachable,
    VendorRef,
)
from adapters.egress import Fetched
from adapters.guarded import Guarded
from adapters.task import Message, Part, Role
from adapters.vendor import Vendor, agent_of
from policies.grant import Grant
from registry.card import Registration
from tests.fakes.a2a_calls import call_to

FOLDER = Path(__file__).parent / "transcripts"
URL = "http://vendor.test"
Change = Callable[[bytes], list[bytes]]  # what becomes of a streamed body: the chunks in which it arrives


@cache
def recorded(vendor: str, scenario: str) -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in (FOLDER / vendor / f"{scenario}.jsonl").read_text().splitlines() if line.strip())


@dataclass(frozen=True)
class Expectation:
    """`NAME.expected.json` beside a transcript: what its adapter has to make of it, written from the vendor's documentation."""

    vendor: str
    scenario: str
    said: Mapping[str, Any] = field(repr=False)

    @property
    def kind(self) -> str:
        return str(self.said["kind"])

    def __str__(self) -> str:
        return f"{self.vendor}-{self.scenario}"


def expectations() -> list[Expectation]:
    """All there are, of every vendor."""
    paths = sorted(FOLDER.glob("*/*.expected.json"))
    return [Expectation(path.parent.name, path.name.removesuffix(".expected.json"), json.loads(path.read_text())) for path in paths]


def vendor_of(kind: str) -> Vendor:
    module, _, name = VENDORS[kind].partition(":")
    made: Vendor = getattr(import_module(module), name)()
    return made


def whole(body: bytes) -> list[bytes]:
    return [body]


def odd(body: bytes) -> list[bytes]:
    """Pieces of 1, 2, 3, 5, 7, 11 and 13 bytes, over and over."""
    pieces, sizes, at, turn = [], (1, 2, 3, 5, 7, 11, 13), 0, 0
    while at < len(body):
        pieces.append(body[at : at + sizes[turn % len(sizes)]])
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    return pieces


class ReplayEgress:
    """Answers as the recording has it, in its order for each method and path, and notes each request that is not the recorded one.

    `ours`: ids that the gateway chooses, in place of recorded ones, as {"recorded id": "*"}. `ignore`: members of a body that may
    differ. `change` is done to streamed bodies; `cut` ends them as a broken connection does.
    """

    def __init__(
        self, exchanges: tuple[dict[str, Any], ...], said: Mapping[str, Any], change: Change = whole, cut: int | None = None
    ) -> None:
        self._left = [each for each in exchanges if each["seq"] not in said.get("skip", ())]
        self._ours = set(said.get("ours", ()))
        self._ignore = set(said.get("ignore", ()))
        self._prefix = str(said.get("prefix", ""))
        self._change = change
        self._cut = cut
        self.problems: list[str] = []
        self.headers: list[Mapping[str, str]] = []

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, **_: Any) -> Fetched:
        response = self._next(method, url, headers, body)
        return Fetched(response["status"], _small(response["headers"]), body_of(response))

    @asynccontextmanager
    async def stream(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, **_: Any) -> AsyncIterator["_Played"]:
        response = self._next(method, url, headers, body)
        raw = body_of(response)
        if self._cut is not None:
            yield _Played(response, self._change(raw[: self._cut]), broken=True)
        else:
            yield _Played(response, self._change(raw), broken=False)

    def _next(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> dict[str, Any]:
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        self.headers.append(headers)
        for place, each in enumerate(self._left):
            request = each["request"]
            if request["method"] == method and self._same(request["path"], self._prefix + path):
                self._left.pop(place)
                self._compare(request, body)
                response: dict[str, Any] = each["response"]
                return response
        self.problems.append(f"nothing recorded for {method} {path}")
        return {"status": 404, "headers": {"content-type": "application/json"}, "json": {}}

    def _same(self, recorded_path: str, path: str) -> bool:
        there, here = recorded_path.split("/"), path.split("/")
        return len(there) == len(here) and all(a == b or a in self._ours for a, b in zip(there, here, strict=True))

    def _compare(self, request: Mapping[str, Any], body: bytes | None) -> None:
        wanted, given = request.get("json"), json.loads(body) if body else None
        for path in _missing(wanted, given, "", self._ignore, self._ours):
            self.problems.append(f"{request['method']} {request['path']}: {path}")


def _missing(wanted: Any, given: Any, path: str, ignore: set[str], ours: set[str]) -> Iterator[str]:
    """Where a body lacks what the recorded one has, or has another value there; more members are fine."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        for name, value in wanted.items():
            if name not in ignore:
                yield from _missing(value, given.get(name), f"{path}.{name}", ignore, ours)
    elif isinstance(wanted, list) and isinstance(given, list) and len(wanted) == len(given):
        for place, (one, other) in enumerate(zip(wanted, given, strict=True)):
            yield from _missing(one, other, f"{path}[{place}]", ignore, ours)
    elif wanted != given and wanted not in (None, {}) and not (isinstance(wanted, str) and wanted in ours):
        yield f"{path or 'body'} is {given!r}, recorded was {wanted!r}"


class _Played:
    def __init__(self, response: Mapping[str, Any], chunks: list[bytes], broken: bool) -> None:
        self.status = response["status"]
        self.headers = response["headers"]
        self._chunks = chunks
        self._broken = broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        if self._broken:
            raise Unreachable("the upstream can't be reached", "the connection was cut")

    async def read(self, limit: int = 0) -> bytes:
        return b"".join(self._chunks)


def body_of(response: Mapping[str, Any]) -> bytes:
    """The bytes of a recorded answer."""
    if "json" in response:
        return json.dumps(response["json"]).encode()
    if "base64" in response:
        return base64.b64decode(response["base64"])
    return str(response.get("stream_raw", response.get("text", ""))).encode()


def _small(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def call_of(kind: str, upstream: Mapping[str, Any], url: str = URL, seconds: float = 60.0) -> Call:
    """A call to an agent of a vendor, with an operator's credential."""
    made = call_to(url, seconds)
    grant: Grant = made.grant
    target = Registration(**{name: getattr(made.target, name) for name in Registration.__slots__} | {"kind": kind, "upstream": upstream})
    return Call(grant, target, made.deadline, {"x-api-key": "operators-secret-key"})


def message_of(said: Mapping[str, Any]) -> Message:
    """`{"text"}`, `{"data"}` or `{"parts": [A2A parts]}`."""
    if "parts" in said:
        parts = tuple(Part(**{_snake(name): value for name, value in each.items()}) for each in said["parts"])
    else:
        parts = (Part(text=said["text"]),) if "text" in said else (Part(data=said["data"]),)
    return Message("m-1", Role.USER, parts)


def _snake(name: str) -> str:
    return {"mediaType": "media_type"}.get(name, name)


async def played(
    expectation: Expectation, change: Change = whole, cut: tuple[int, int] | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """What came of each turn, and what was asked otherwise than recorded. `cut`: (turn, bytes) at which a streamed body breaks."""
    said = expectation.said
    exchanges = recorded(expectation.vendor, expectation.scenario)
    egress = ReplayEgress(exchanges, said, change)
    agent = Guarded(agent_of(vendor_of(expectation.kind), egress))  # type: ignore[arg-type]  # it does what is needed
    call = call_of(expectation.kind, said["upstream"])
    outcomes: list[dict[str, Any]] = []
    ref: VendorRef | None = None
    prompts: tuple[Prompt, ...] = ()
    for number, each in enumerate(said["turns"]):
        egress._cut = cut[1] if cut and cut[0] == number else None
        answers = tuple(Answer(prompt, each["answers"][prompt.id]) for prompt in prompts) if "answers" in each else ()
        turn = Turn(
            message_of(each["send"]), ref, each.get("stream", True), answers=answers, session="5f0c2a52-0000-5000-8000-000000000001"
        )
        events = await gathered(agent.run(turn, call))
        outcomes.append(outcome(events))
        ref = next((event.ref for event in reversed(events) if isinstance(event, Ref)), ref)
        prompts = events[-1].prompts if isinstance(events[-1], Ask) else ()
        if cut and cut[0] == number:
            break
    return outcomes, egress.problems


async def gathered(events: AsyncIterator[Event]) -> list[Event]:
    """All events of a turn."""
    async with asyncio.timeout(60), aclosing(events) as arriving:  # type: ignore[type-var]  # every adapter's run is a generator
        return [event async for event in arriving]


STATES = {Done: "COMPLETED", Replied: "COMPLETED", Failed: "FAILED", Canceled: "CANCELED", Ask: "INPUT_REQUIRED"}


def outcome(events: list[Event]) -> dict[str, Any]:
    """What the events of a turn amount to: the state, artifacts as texts and data, prompts, notes, and the text of the ending."""
    assert [isinstance(event, ENDINGS) for event in events] == [False] * (len(events) - 1) + [True], events
    ending, artifacts = events[-1], _artifacts(events)
    state = "REJECTED" if isinstance(ending, Failed) and ending.rejected else STATES[type(ending)]
    if isinstance(ending, Ask) and (ending.auth or any(prompt.kind.value == "auth" for prompt in ending.prompts)):
        state = "AUTH_REQUIRED"
    told: dict[str, Any] = {"state": state, "artifacts": artifacts}
    if isinstance(ending, Ask):
        told["prompts"] = [_prompt(prompt) for prompt in ending.prompts]
    if isinstance(ending, Failed):
        told["kind"] = ending.kind
        told["reason"] = ending.reason
    message = ending.message
    if message is not None:
        told["message"] = "\n".join(part.text for part in message.parts if isinstance(part.text, str))
    notes: dict[str, Any] = {}
    for event in events:
        if isinstance(event, Progress | Done):
            notes |= event.metadata or {}
    return told | ({"metadata": notes} if notes else {})


def _artifacts(events: list[Event]) -> list[dict[str, Any]]:
    found: dict[str, list[Part]] = {}
    for event in events:
        if isinstance(event, ArtifactPiece):
            before = found.get(event.artifact.artifact_id, []) if event.append else []
            found[event.artifact.artifact_id] = [*before, *event.artifact.parts]
    return [_parts(parts) for parts in found.values()]


def _parts(parts: list[Part]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    texts = [part.text for part in parts if isinstance(part.text, str)]
    if texts:
        told["text"] = "".join(texts)
    for part in parts:
        if not isinstance(part.text, str):
            told.setdefault("parts", []).append(
                {name: value for name in ("data", "raw", "url") if not isinstance(value := getattr(part, name), type(Part().raw))}
            )
        if isinstance(part.metadata, dict):
            told.setdefault("metadata", []).append(part.metadata)
    return told


def _prompt(prompt: Prompt) -> dict[str, Any]:
    told = {
        "id": prompt.id,
        "text": prompt.text,
        "data": prompt.data,
        "schema": prompt.schema,
        "kind": prompt.kind.value,
        "url": prompt.url,
    }
    return {name: value for name, value in told.items() if value not in ("", None)}


def fits(expected: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether an outcome is the expected one; what an expectation leaves out may be anything, but for artifacts and prompts."""
    full = {"artifacts": [], "prompts": [], **expected}
    return all(found.get(name, []) == value for name, value in full.items() if name not in ("send", "stream", "answers"))
