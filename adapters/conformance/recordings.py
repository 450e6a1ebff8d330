"""Recordings of a vendor's agent, `NAME.jsonl`, and the expected outcomes, `NAME.expected.json`."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from adapters.vendors.sdk.frames import Frame, Head, decoder_for

EXPECTED_SUFFIX = ".expected.json"
SSE_PREFIXES = (b"event:", b"data:", b"id:", b":")
BodyTransform = Callable[[bytes], list[bytes]]  # converts a streamed body to the chunks in which it arrives


@cache
def load_exchanges(path: Path) -> tuple[dict[str, Any], ...]:
    """The exchanges of one `.jsonl` file, each `{"seq", "request": {"method", "path", "json"}, "response": {"status", "headers", …}}`."""
    return tuple(json.loads(line) for line in path.read_text().splitlines() if line.strip())


@dataclass(frozen=True)
class Expectation:
    """One scenario: `document` is the content of `SCENARIO.expected.json` in the folder of the recordings."""

    folder: Path
    scenario: str
    document: Mapping[str, Any] = field(repr=False)

    @property
    def vendor(self) -> str:
        """The vendor by the folder's name."""
        return self.folder.name

    @property
    def kind(self) -> str:
        return str(self.document["kind"])

    @property
    def upstream(self) -> Mapping[str, Any]:
        """The options in `upstream` that an operator would set for this agent."""
        return dict(self.document["upstream"])

    @cached_property
    def exchanges(self) -> tuple[dict[str, Any], ...]:
        return load_exchanges(self.folder / f"{self.scenario}.jsonl")

    def __str__(self) -> str:
        return f"{self.vendor}-{self.scenario}"


def load_expectations(folder: Path) -> list[Expectation]:
    """All scenarios of a folder that have an expectation."""
    paths = sorted(folder.glob(f"*{EXPECTED_SUFFIX}"))
    return [Expectation(folder, path.name.removesuffix(EXPECTED_SUFFIX), json.loads(path.read_text())) for path in paths]


def recorded_body(response: Mapping[str, Any]) -> bytes:
    """The body of a recorded response: its `json`, `base64`, `stream_raw` or `text`."""
    if "json" in response:
        return json.dumps(response["json"]).encode()
    if "base64" in response:
        return base64.b64decode(response["base64"])
    return str(response.get("stream_raw", response.get("text", ""))).encode()


def recorded_frames(response: Mapping[str, Any], transform: BodyTransform) -> list[Frame]:
    """The frames of a recorded response, from its Head to its End."""
    headers = {name.lower(): value for name, value in response["headers"].items()}
    decoder = decoder_for(headers.get("content-type", ""))
    frames: list[Frame] = [Head(headers)]
    for piece in transform(recorded_body(response)):
        frames += decoder.feed(piece)
    return frames + decoder.finish()


def in_one_chunk(body: bytes) -> list[bytes]:
    return [body]


def in_odd_chunks(body: bytes) -> list[bytes]:
    """The body in pieces of 1, 2, 3, 5, 7, 11 and 13 bytes, repeatedly."""
    pieces, sizes, at, turn = [], (1, 2, 3, 5, 7, 11, 13), 0, 0
    while at < len(body):
        pieces.append(body[at : at + sizes[turn % len(sizes)]])
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    return pieces


def with_unknown_events(body: bytes) -> list[bytes]:
    """The body with unknown events between its server-sent events, and an unknown member in each of them."""
    if not body.lstrip().startswith(SSE_PREFIXES):
        return [body]
    known = [_with_unknown_member(block) for block in _split_events(body)]
    return [b'\n\nevent: x-unknown\ndata: {"type":"x-unknown","x":1}\n\n: a comment\n\n'.join(known)]


def with_repeated_events(body: bytes) -> list[bytes]:
    """The body with each server-sent event twice."""
    if not body.lstrip().startswith(SSE_PREFIXES):
        return [body]
    return [b"".join(block + b"\n\n" + block + b"\n\n" for block in _split_events(body) if block.strip())]


def _split_events(body: bytes) -> list[bytes]:
    return body.replace(b"\r\n", b"\n").split(b"\n\n")


def _with_unknown_member(block: bytes) -> bytes:
    return b"\n".join(_lines_with_unknown_member(block.split(b"\n")))


def _lines_with_unknown_member(lines: list[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield b'data: {"x-unknown":7,' + line[7:] if line.startswith(b'data: {"') else line
