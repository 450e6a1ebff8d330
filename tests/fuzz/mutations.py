"""Random changes to a valid request: values, names and structure of its JSON, the bytes of the body, and headers."""

import json
import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from tests.fuzz.requests import JSON, Seed

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, -(2**63), 2**64, 10**400, 1.5, 1e308, float("nan"), float("inf"), -0.0,
    "", " ", "0", "null", "\x00", "\ud800", "\u202e", "é" * 40, "a" * 70_000, "../../etc/passwd", "' OR 1=1 --", "{{7*7}}", "%00", "%s%n",
    "http://127.0.0.1:9/", "file:///etc/passwd", "2026-13-45T99:99:99Z", "aGk", "====", "TASK_STATE_NOSUCH", "*/*",
    [], {}, [[]], [None], [{}], {"": ""}, {"a": {"b": {"c": []}}}, [1, "a", None, {}], ["x"] * 300, {"__proto__": {"a": 1}}, {"$ref": "#"},
)  # fmt: skip
ODD_NAMES = (
    "",
    "id",
    "jsonrpc",
    "method",
    "params",
    "_meta",
    "kind",
    "\x00",
    "a" * 3_000,
    "é",
    "__proto__",
    "taskId",
    "task_id",
    "metadata",
)
ODD_HEADERS = (
    "",
    " ",
    "0",
    "1.0",
    "0.3",
    "9.9",
    "2025-03-26",
    "2024-11-05",
    "2026-07-28",
    "2099-01-01",
    "text/plain",
    JSON,
    "*/*",
    "a" * 4_000,
    "é",
    "\t",
    "tools/call",
    "x,y",
)
_DEEP = (10, 63, 64, 65, 1_000, 100_000)


@dataclass(frozen=True, slots=True)
class Case:
    """One request as it is sent. `number` and the seed of the run make it again."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def build_case(number: int, seeds: list[Seed], seed: int) -> Case:
    """The case of a number: one to four changes to one of the valid requests."""
    chance = random.Random(f"{seed}-{number}")
    chosen = chance.choice(seeds)
    document = deepcopy(chosen.body)
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        document = _change_json(document, chance)
    body = b"" if chosen.body is None else json.dumps(document).encode()
    if chance.random() < 0.25:
        body = chance.choice(_BYTES)(body, chance)
    headers = dict(chosen.headers)
    if chance.random() < 0.2:
        name = chance.choice([*headers, "Last-Event-ID", "traceparent", "Idempotency-Key", "Mcp-Session-Id", "A2A-Extensions"])
        headers[name] = chance.choice(ODD_HEADERS)
    case = Case(number, chosen.method, chosen.path, headers, body)
    return _change_path(case, chance) if chance.random() < 0.05 else case


def _change_path(case: Case, chance: random.Random) -> Case:
    cut = chance.randrange(1, len(case.path) + 1)
    return replace(
        case,
        path=case.path[:cut] + chance.choice(("", "/", "%00", "%ff", "..", "?", "a" * 5_000, "//", ";", "%2e%2e%2f")) + case.path[cut:],
    )


def _change_json(document: Any, chance: random.Random) -> Any:
    """Changes one place of the document, or all of it."""
    places = list(_places(document))
    if not places or chance.random() < 0.03:
        return deepcopy(chance.choice(ODD_VALUES))
    holder, key = chance.choice(places)
    change = chance.choice(("value", "value", "value", "remove", "rename", "add", "wrap", "repeat", "swap"))
    if change == "remove":
        del holder[key]
    elif change == "rename" and isinstance(holder, dict):
        holder[chance.choice(ODD_NAMES)] = holder.pop(key)
    elif change == "add" and isinstance(holder, dict):
        holder[chance.choice(ODD_NAMES)] = deepcopy(chance.choice(ODD_VALUES))
    elif change == "wrap":
        holder[key] = chance.choice(([holder[key]], {"value": holder[key]}, str(holder[key])))
    elif change == "repeat":
        holder[key] = [deepcopy(holder[key]) for _ in range(chance.choice((2, 51, 200)))]
    elif change == "swap":
        other, place = chance.choice(places)
        holder[key] = deepcopy(other[place])
    else:
        holder[key] = deepcopy(chance.choice(ODD_VALUES))
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of the document, as what holds it and its key."""
    keys = document.keys() if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in keys:
        yield document, key
        yield from _places(document[key])


def _flip(body: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(body) + 1)
    return body[:at] + bytes((chance.randrange(256),)) + body[at + 1 :]


def _truncate(body: bytes, chance: random.Random) -> bytes:
    return body[: chance.randrange(len(body) + 1)]


def _nest(body: bytes, chance: random.Random) -> bytes:
    deep = chance.choice(_DEEP)
    return chance.choice((b"[" * deep + body + b"]" * deep, b'{"params":' * deep + body + b"}" * deep, b"[" * deep))


def _double_a_name(body: bytes, _chance: random.Random) -> bytes:
    return body.replace(b'{"', b'{"method": "tools/list", "', 1)


_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    _flip,
    _truncate,
    _nest,
    _double_a_name,
    lambda body, _: body + b"\xff\xfe",
    lambda body, _: b"\xef\xbb\xbf" + body,
    lambda body, _: body + body,
    lambda body, _: b"[" + b",".join([body or b"1"] * 60) + b"]",
    lambda body, _: body.decode().encode("utf-16"),
    lambda _, chance: bytes(chance.randrange(256) for _ in range(200)),
)
