"""JSON from strangers: size, encoding, depth, duplicate keys and numbers are checked before anything is believed."""

import json
import math
import re
from typing import Any

MAX_DEPTH = 64
_STRING = re.compile(rb'"(?:[^"\\]+|\\.)*+"?', re.DOTALL)  # also one that never ends, so that no byte is looked at twice
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class BadJson(ValueError):
    """The text is not JSON that we accept; the message says why and never quotes it."""


def parse(raw: bytes) -> Any:
    """Decodes UTF-8 JSON: at most 64 levels deep, no duplicate keys, finite numbers, no lone surrogates.

    An integer has at most 308 characters, so that it is finite as a float too.
    The caller bounds the size. Raises BadJson.
    """
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        _check_depth(raw)
    try:
        text = raw.decode("utf-8")
        value = _DECODER.decode(text)
    except BadJson:
        raise
    except UnicodeDecodeError:
        raise BadJson("the text is not UTF-8") from None
    except (ValueError, RecursionError):
        raise BadJson("the text is not JSON") from None
    if "\\u" in text:
        _check_surrogates(text, value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise BadJson("an object has the same key twice")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise BadJson("a number is not finite")
    return number


def _integer(text: str) -> int:
    if len(text) > 308:
        raise BadJson("a number is too long")
    return int(text)


def _constant(name: str) -> Any:
    raise BadJson(f"{name} is not JSON")


def _check_depth(raw: bytes) -> None:
    """Takes the innermost pairs of brackets away, once per level: what is left after the last is too deep, or never closes."""
    marks = _STRING.sub(b"", raw).translate(_SQUARE, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        fewer = marks.replace(b"[]", b"")
        if len(fewer) == len(marks):
            break
        marks = fewer
    if marks:
        raise BadJson(f"the text is nested deeper than {MAX_DEPTH} levels, or its brackets do not match")


def _check_surrogates(text: str, value: Any) -> None:
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise BadJson("a string has a lone surrogate") from None


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_int=_integer, parse_constant=_constant)
