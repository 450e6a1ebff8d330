"""What every adapter of a vendor keeps, whoever wrote it: a new one joins by its line in the catalogue and its expectation files."""

import inspect
import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from adapters.catalog import VENDORS
from adapters.contract import Event, Failed, Turn
from adapters.egress import Fetched
from adapters.frames import End, Frame, Head, SseFrame, decoder_for
from adapters.guarded import Guarded
from adapters.resilience import Resilience
from adapters.vendor import CUT, BadOptions, Features, Polling, VendorOptions, agent_of, options_of, parse
from adapters.vendor_faults import BUSY, REFUSES, UPSTREAM
from adapters.vendor_line import Line, Place
from tests.adapters.replay import (
    Expectation,
    ReplayEgress,
    body_of,
    call_of,
    expectations,
    fits,
    gathered,
    message_of,
    odd,
    outcome,
    played,
    recorded,
    vendor_of,
    whole,
)

KINDS = sorted(VENDORS)
ALL = expectations()
TURNS = [each for each in ALL if "turns" in each.said]
STREAMED = [each for each in TURNS if not each.said.get("whole")]
BODIES = [(each, body) for each in ALL for body in each.said.get("bodies", ())]
LINES_MAX = 200
LEAK = "Traceback at /srv/agents/secret-folder/app.py"


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_a_small_file_without_state(kind: str) -> None:
    vendor = vendor_of(kind)
    assert vendor.kind == kind
    assert isinstance(vendor.features, Features) and issubclass(vendor.options, VendorOptions)
    assert vars(vendor) == {}
    assert vendor.features.polls == isinstance(vendor, Polling)
    assert len(Path(inspect.getfile(type(vendor))).read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_shown_by_expectations(kind: str) -> None:
    assert [each for each in ALL if each.kind == kind]


@pytest.mark.parametrize("pieces", [whole, odd], ids=["whole", "pieces"])
@pytest.mark.parametrize("expectation", TURNS, ids=str)
async def test_a_recording_comes_out_as_expected(expectation: Expectation, pieces: Any) -> None:
    outcomes, problems = await played(expectation, pieces)
    assert problems == []
    for expected, found in zip(expectation.said["turns"], outcomes, strict=True):
        assert fits(expected, found), (expected, found)


@pytest.mark.parametrize("pieces", [whole, odd], ids=["whole", "pieces"])
@pytest.mark.parametrize(("expectation", "body"), BODIES, ids=lambda value: str(value) if isinstance(value, Expectation) else value["seq"])
def test_a_body_is_read_as_expected(expectation: Expectation, body: Mapping[str, Any], pieces: Any) -> None:
    exchange = next(each for each in recorded(expectation.vendor, expectation.scenario) if each["seq"] == body["seq"])
    found = outcome(list(parse(reader_of(body), frames_of(exchange["response"], pieces))))
    assert fits({name: value for name, value in body.items() if name not in ("seq", "reader", "arguments")}, found), found


@pytest.mark.parametrize("expectation", [each for each in ALL if "describe" in each.said], ids=str)
async def test_an_agent_is_described_as_expected(expectation: Expectation) -> None:
    egress = ReplayEgress(recorded(expectation.vendor, expectation.scenario), expectation.said)
    vendor, call = vendor_of(expectation.kind), call_of(expectation.kind, expectation.said["upstream"])
    place = Place(call.target.url, call.target.upstream, call.headers, call.deadline)
    told = await vendor.describe(Line(egress, place, options_of(vendor, place.upstream)))  # type: ignore[arg-type]  # it does what is needed
    assert egress.problems == []
    assert {name: getattr(told, name) for name in expectation.said["describe"]} == expectation.said["describe"]


@pytest.mark.parametrize("expectation", STREAMED, ids=str)
async def test_an_answer_that_is_cut_is_a_failure_even_after_partial_output(expectation: Expectation) -> None:
    for number in range(len(expectation.said["turns"])):
        for size in (0, 1, 40, 200):
            outcomes, _ = await played(expectation, cut=(number, size))
            assert outcomes[-1]["state"] == "FAILED", (number, size, outcomes[-1])


@pytest.mark.parametrize("expectation", STREAMED, ids=str)
async def test_unknown_events_and_members_change_nothing(expectation: Expectation) -> None:
    outcomes, _ = await played(expectation, lambda body: [_with_strangers(body)])
    for expected, found in zip(expectation.said["turns"], outcomes, strict=True):
        assert fits(expected, found), (expected, found)


@pytest.mark.parametrize("expectation", STREAMED, ids=str)
async def test_a_repeated_event_brings_no_second_ending(expectation: Expectation) -> None:
    outcomes, _ = await played(expectation, lambda body: [_repeated(body)])  # `outcome` asserts that there is one
    assert [each["state"] for each in outcomes][:1] == [expectation.said["turns"][0]["state"]]


ANSWERS: list[tuple[str, int, Mapping[str, str], bytes, str, bool]] = [
    ("401", 401, {}, b'{"detail":"%s"}', REFUSES, False),
    ("403", 403, {}, b'{"detail":"%s"}', REFUSES, False),
    ("404", 404, {}, b'{"detail":"%s"}', UPSTREAM, False),
    ("409", 409, {}, b'{"detail":"%s"}', BUSY, True),
    ("422", 422, {}, b'{"detail":"%s"}', UPSTREAM, False),
    ("423", 423, {"Retry-After": "3"}, b"%s", BUSY, True),
    ("429", 429, {}, b"%s", BUSY, True),
    ("429-after", 429, {"Retry-After": "7"}, b"%s", BUSY, True),
    ("429-date", 429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"%s", BUSY, True),
    ("500", 500, {"content-type": "text/plain"}, b"%s", UPSTREAM, False),
    ("503", 503, {}, b"%s", UPSTREAM, False),
    ("503-after", 503, {"Retry-After": "1"}, b"%s", BUSY, True),
    ("redirect", 302, {"Location": "http://169.254.169.254/"}, b"%s", UPSTREAM, False),
    ("html", 200, {"content-type": "text/html"}, b"<html>%s</html>", "INVALID_AGENT_RESPONSE", False),
    ("no-json", 200, {}, b"{%s", "INVALID_AGENT_RESPONSE", False),
    ("deep", 200, {}, b"[" * 100_000 + b"%s", "INVALID_AGENT_RESPONSE", False),
    ("list", 200, {}, b'["%s"]', "INVALID_AGENT_RESPONSE", False),
    ("other-shape", 200, {}, b'{"messages":"%s","output":7,"status":[],"choices":null}', "INVALID_AGENT_RESPONSE", False),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("status", "headers", "body", "reason", "retryable"), [each[1:] for each in ANSWERS], ids=[each[0] for each in ANSWERS]
)
async def test_a_bad_answer_is_a_failure_of_its_kind_that_tells_nothing(
    kind: str, status: int, headers: Mapping[str, str], body: bytes, reason: str, retryable: bool
) -> None:
    events = await _asked(kind, lambda: (status, {"content-type": "application/json", **headers}, body.replace(b"%s", LEAK.encode())))
    ending = events[-1]
    assert isinstance(ending, Failed), ending
    assert (ending.kind or reason, ending.retryable) == (reason, retryable)
    assert "secret-folder" not in ending.reason and ending.message is None


@pytest.mark.parametrize("kind", KINDS)
async def test_a_credential_that_an_agent_echoes_is_not_in_the_details(kind: str) -> None:
    events = await _asked(kind, lambda: (401, {}, b"bad key operators-secret-key"))
    assert isinstance(events[-1], Failed)
    assert "operators-secret-key" not in events[-1].detail and "bad key" in events[-1].detail


@pytest.mark.parametrize("kind", KINDS)
async def test_options_of_another_kind_are_refused(kind: str) -> None:
    upstream = next(each.said["upstream"] for each in ALL if each.kind == kind)
    with pytest.raises(BadOptions, match="no-such-option is not an option"):
        options_of(vendor_of(kind), {**upstream, "no-such-option": 1})


def reader_of(body: Mapping[str, Any]) -> Any:
    """The reader that an expectation names."""
    module, _, name = body["reader"].partition(":")
    return getattr(import_module(module), name)(*body.get("arguments", ()))


def frames_of(response: Mapping[str, Any], pieces: Callable[[bytes], list[bytes]]) -> list[Frame]:
    """The frames of a recorded answer."""
    headers = {name.lower(): value for name, value in response["headers"].items()}
    decoder = decoder_for(headers.get("content-type", ""))
    frames: list[Frame] = [Head(headers)]
    for piece in pieces(body_of(response)):
        frames += decoder.feed(piece)
    return frames + decoder.finish()


def _with_strangers(body: bytes) -> bytes:
    """An event that nobody knows between all events, and a member that nobody knows in each of them."""
    if not body.lstrip().startswith((b"event:", b"data:", b"id:", b":")):
        return body
    blocks = body.replace(b"\r\n", b"\n").split(b"\n\n")
    known = [_with_member(block) for block in blocks]
    return b'\n\nevent: x-unknown\ndata: {"type":"x-unknown","x":1}\n\n: a comment\n\n'.join(known)


def _with_member(block: bytes) -> bytes:
    return b"\n".join(b'data: {"x-unknown":7,' + line[7:] if line.startswith(b'data: {"') else line for line in block.split(b"\n"))


def _repeated(body: bytes) -> bytes:
    """Each event twice, where it is an event."""
    if not body.lstrip().startswith((b"event:", b"data:", b"id:", b":")):
        return body
    return b"".join(block + b"\n\n" + block + b"\n\n" for block in body.replace(b"\r\n", b"\n").split(b"\n\n") if block.strip())


class _Says:
    """An egress whose other side gives the same answer to everything."""

    def __init__(self, answer: Callable[[], tuple[int, Mapping[str, str], bytes]]) -> None:
        self._answer = answer

    async def request(self, method: str, url: str, **_: Any) -> Fetched:
        return Fetched(*self._answer())

    def stream(self, method: str, url: str, **_: Any) -> "_Says":
        self.status, self.headers, self.body = self._answer()
        return self

    async def __aenter__(self) -> "_Says":
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def __aiter__(self) -> Any:
        yield self.body

    async def read(self, limit: int = 0) -> bytes:
        return self.body


async def _at_once(_: float) -> None:
    """Nobody waits for the time that an agent asks for."""


async def _asked(kind: str, answer: Callable[[], tuple[int, Mapping[str, str], bytes]]) -> list[Event]:
    upstream = next(each.said["upstream"] for each in ALL if each.kind == kind)
    agent = Guarded(agent_of(vendor_of(kind), _Says(answer)), Resilience(pause=_at_once))  # type: ignore[arg-type]  # it does what is needed
    return await gathered(agent.run(Turn(message_of({"text": "hello"}), session="s", stream=True), call_of(kind, upstream)))


def test_a_cut_is_said_whatever_the_reader_has() -> None:
    class Silent:
        def take(self, frame: Frame) -> list[Event]:
            return []

    assert [event.reason for event in parse(Silent(), [SseFrame("x", json.dumps({})), End(False)]) if isinstance(event, Failed)] == [CUT]
