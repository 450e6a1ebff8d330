"""One side of a check by an official SDK, in the SDK's own environment: its client repeats what an adapter asked, and reads the answers.

Needs the standard library alone. Talks come as JSON on standard input, and a row for each of them goes to standard output.
"""

import base64
import json
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Json = dict[str, Any]


@dataclass
class Fake:
    """A server on loopback that answers one talk as recorded, and keeps what it is asked. `url` is its own."""

    url: str = ""
    aside: Callable[[str, str], Any] = lambda *_: None
    exchanges: list[Json] = field(default_factory=list)
    asked: list[Json] = field(default_factory=list)

    def load(self, exchanges: list[Json]) -> None:
        self.exchanges, self.asked = list(exchanges), []

    def answer(self, method: str, path: str, headers: Json, body: bytes) -> Json:
        """The next recorded answer for this method and path, else what is answered besides; 599 for a request that nobody recorded."""
        asked = {"method": method, "path": path, "headers": headers, "json": _json(body)}
        for place, each in enumerate(self.exchanges):
            if each["method"] == method and urlsplit(each["path"]).path == urlsplit(path).path:
                self.asked.append(asked)
                response: Json = self.exchanges.pop(place)["response"]
                return response
        if (known := self.aside(method, urlsplit(path).path)) is not None:
            raw = base64.b64encode(json.dumps(known).encode()).decode()
            return {"status": 200, "headers": {"content-type": "application/json"}, "body": raw}
        self.asked.append(asked)
        return {"status": 599, "headers": {"content-type": "application/json"}, "body": ""}


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode("utf-8", "replace")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: Fake

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        response = self.fake.answer(self.command, self.path, headers, body)
        raw = base64.b64decode(response["body"])
        self.send_response(response["status"])
        for name, value in response["headers"].items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "content-encoding", "date", "server"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve  # the names that http.server calls

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""


@contextmanager
def served(oracle: "Oracle") -> Iterator[Fake]:
    """A fake on a free port, until the block ends."""
    fake = Fake(aside=oracle.aside)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": fake}))
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class Oracle:
    """`repeat` has the SDK's client make the same request and reads its answer to the end. False: the SDK has no call for it; None: the
    SDK has no client.

    `problems` says what is wrong with a request or an answer by the SDK's types. `headers` are those that both have to send alike.
    `unlisted` are members of bodies and of queries that one of both leaves out. `faults` are what the client raises for an answer that
    is an error. `aside` answers what the client asks besides, by method and path, which is not compared.
    """

    repeat: Callable[[str, Json], bool] | None
    problems: Callable[[Json], Iterable[str]] = lambda _: ()
    headers: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    faults: tuple[type[BaseException], ...] = ()
    aside: Callable[[str, str], Any] = lambda *_: None


def main(oracle: Oracle) -> None:
    """Reads the talks, and writes a row for each: its scenario and what did not come out alike, which is empty when all did."""
    talks = json.load(sys.stdin)
    with served(oracle) as fake:
        for talk in talks:
            try:
                why = "; ".join(_found(oracle, fake, talk))
            except Exception:  # noqa: BLE001  # whatever an SDK raises is what is told
                why = traceback.format_exc()[-1500:]
            print(json.dumps({"scenario": talk["scenario"], "why": why}), flush=True)


def _found(oracle: Oracle, fake: Fake, talk: Json) -> Iterator[str]:
    if not talk["exchanges"]:
        yield "the adapter asked nothing"
    for exchange in talk["exchanges"]:
        place = f"{exchange['method']} {exchange['path']}"
        yield from (f"{place}: {problem}" for problem in oracle.problems(exchange))
        if oracle.repeat is not None:
            yield from (f"{place}: {problem}" for problem in _repeated(oracle, oracle.repeat, fake, exchange))


def _repeated(oracle: Oracle, repeat: Callable[[str, Json], bool], fake: Fake, exchange: Json) -> Iterator[str]:
    fake.load([exchange])
    try:
        if not repeat(fake.url, exchange):
            yield "the SDK has no such call"
            return
    except oracle.faults as fault:
        if exchange["response"]["status"] < 400:
            yield f"the SDK raises {type(fault).__name__}: {fault}"
    yield from _differences(oracle, exchange, fake.asked)


def _differences(oracle: Oracle, wanted: Json, asked: list[Json]) -> Iterator[str]:
    """Between the adapter's request and the SDK's."""
    if len(asked) != 1:
        yield f"the SDK asks {len(asked)} times: {[each['path'] for each in asked]}"
        return
    one, other = urlsplit(wanted["path"]), urlsplit(asked[0]["path"])
    if one.path != other.path:
        yield f"the SDK's path is {other.path}"
    if sorted(parse_qsl(one.query, True)) != sorted(each for each in parse_qsl(other.query, True) if each[0] not in oracle.unlisted):
        yield f"the SDK's query is {other.query!r}"
    for name in oracle.headers:
        if wanted["headers"].get(name) != asked[0]["headers"].get(name):
            yield f"the SDK's header {name} is {asked[0]['headers'].get(name)!r}, the adapter's {wanted['headers'].get(name)!r}"
    theirs, ours = (_without(each, oracle.unlisted, other) for each, other in _both_ways(asked[0]["json"], wanted["json"]))
    if (theirs or None) != (ours or None):
        yield f"the SDK's body is {json.dumps(theirs)[:300]}, the adapter's {json.dumps(ours)[:300]}"


def _both_ways(one: Any, other: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    return (one, other), (other, one)


def _without(body: Any, names: tuple[str, ...], other: Any) -> Any:
    """A body without those of the members that the other one lacks or has empty."""
    if not isinstance(body, dict) or not isinstance(other, dict):
        return body
    return {name: value for name, value in body.items() if name not in names or other.get(name)}


def events_in(response: Json, named: str = "") -> list[Json]:
    """The JSON of each server-sent event of an answer, or of those of one name, without the mark of its end."""
    blocks = base64.b64decode(response["body"]).decode().replace("\r\n", "\n").split("\n\n")
    wanted = [block.split("\n") for block in blocks if not named or f"event: {named}" in block.split("\n")]
    lines = [line[5:].strip() for block in wanted for line in block if line.startswith("data:")]
    return [json.loads(line) for line in lines if line and line != "[DONE]"]


def json_in(response: Json) -> Any:
    """The JSON of an answer; None of an empty one."""
    return _json(base64.b64decode(response["body"]))


def is_stream(response: Json) -> bool:
    return any(name.lower() == "content-type" and "event-stream" in value for name, value in response["headers"].items())
