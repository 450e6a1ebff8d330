"""Strict parsing of JSON from other parties: unique names, finite numbers, no lone surrogates, bounded depth and size."""

import asyncio
import gc
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import jiter

MAX_DEPTH: Final = 64
DIGITS_MAX: Final = 308  # of an integer, so that it is finite as a float too
MEMBERS_MAX: Final = 250_000  # arrays, objects and names in one document
VALUES_MAX: Final = 2_000_000  # values in one document: as many as 4 MB can hold
LARGE: Final = 1 << 16  # bytes; longer text is parsed in a thread

_HUGE: Final = 10**DIGITS_MAX
_SHAPE: Final = bytes.maketrans(b"123456789E{", b"000000000e[")  # all digits, exponents and containers look alike
_SIGN: Final = b"+"  # is left out
_LARGE_EXPONENT: Final = b"0e000"
_LONG: Final = b"0" * 200
_REASONS: Final = {
    "duplicate key": "an object has the same key twice",
    "recursion limit": f"the text is nested deeper than {MAX_DEPTH} levels",
    "unicode code point": "the text is not UTF-8",
    "hex escape": "a string has a lone surrogate, or an escape that does not end",
    "out of range": "a number is too long",
}
_reader: Final = ThreadPoolExecutor(1, "json-reader")  # a single thread, so that the event loop competes with one thread at most
T = TypeVar("T")


class BadJson(ValueError):
    """The text is not JSON that the gateway accepts; the message says why and never quotes it."""


def parse(raw: bytes, members_max: int = MEMBERS_MAX) -> Any:
    """Decodes UTF-8 JSON of at most MAX_DEPTH levels, `members_max` arrays, objects and names, and VALUES_MAX values. Raises BadJson.

    The caller bounds the size in bytes, and parses texts longer than LARGE in a thread: `await run_off_loop(parse, raw)`.
    """
    if len(raw) > LARGE:
        return _parse_large(raw, members_max)
    value = _decode(raw, unique=True)
    shape = raw.translate(_SHAPE, _SIGN)
    if shape.count(b"[") > MAX_DEPTH:
        _check_containers(value)
    if _LARGE_EXPONENT in shape or _LONG in shape:
        _check_numbers(value)
    return value


def _parse_large(raw: bytes, members_max: int) -> Any:
    """Parses a long text. Only the decoding holds the interpreter, for about 20 ms per 4 MB; the checks let other threads run."""
    names = count_names(raw, members_max)
    collecting = gc.isenabled()
    gc.disable()  # JSON has no cycles, and the collector would traverse it several times
    try:
        value = _decode(raw, unique=False)
    finally:
        if collecting:
            gc.enable()
    if _check_containers(value) != names:
        raise BadJson(_REASONS["duplicate key"])
    shape = raw.translate(_SHAPE, _SIGN)
    if _LARGE_EXPONENT in shape or _LONG in shape:
        _check_numbers(value)
    return value


async def run_off_loop(act: Callable[..., T], raw: bytes, *arguments: Any) -> T:
    """Calls `act(raw, *arguments)`; in the reader thread where `raw` is longer than LARGE, so that the event loop is not blocked."""
    if len(raw) <= LARGE:
        return act(raw, *arguments)
    return await run_in_reader(act, raw, *arguments)


async def run_in_reader(act: Callable[..., T], *arguments: Any) -> T:
    """Calls `act(*arguments)` in the thread that parses long texts."""
    return await asyncio.get_running_loop().run_in_executor(_reader, act, *arguments)


def count_names(raw: bytes, members_max: int = MEMBERS_MAX) -> int:
    """Counts the names of members in a text, before it is decoded. Raises BadJson for too many names, containers or values."""
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw  # each remaining quote begins or ends a string
    names = containers = commas = inside = 0
    for start in range(0, len(plain), LARGE):
        parts = plain[start : start + LARGE].split(b'"')
        outside = b"".join(parts[inside::2])
        inside ^= (len(parts) - 1) & 1
        names += outside.count(b":")
        containers += outside.count(b"[") + outside.count(b"{")
        commas += outside.count(b",")
        if names + containers > members_max:
            raise BadJson(f"the text has more than {members_max} arrays, objects and names")
        if commas >= VALUES_MAX:
            raise BadJson(f"the text has more than {VALUES_MAX} values")
    return names


def _decode(raw: bytes, unique: bool) -> Any:
    try:
        return jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=unique, cache_mode="keys")
    except ValueError as error:
        raise BadJson(_reason(str(error))) from None


def _reason(message: str) -> str:
    """The public text for a parser error. The library's text names a position, and quotes only duplicate keys."""
    return next((reason for mark, reason in _REASONS.items() if mark in message), f"the text is not JSON: {message}")


def _check_containers(value: Any) -> int:
    """Checks the depth, level by level, and returns the number of members of all objects. Raises BadJson beyond MAX_DEPTH."""
    members = 0
    level = [value] if type(value) in (dict, list) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return members
        members += sum(len(each) for each in level if type(each) is dict)
        inner = (each.values() if type(each) is dict else each for each in level)
        level = [each for some in inner for each in some if type(each) is dict or type(each) is list]
    if level:
        raise BadJson(_REASONS["recursion limit"])
    return members


def _check_numbers(value: Any) -> None:
    """Checks the numbers of a text that may have one out of range: with very many digits, or an exponent of three digits."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if type(each) is dict:
            waiting += each.values()
        elif type(each) is list:
            waiting += each
        elif type(each) is float:
            if not math.isfinite(each):
                raise BadJson("a number is not finite")
        elif type(each) is int and not -_HUGE < each < _HUGE:
            raise BadJson("a number is too long")
