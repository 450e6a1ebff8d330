"""JSON from strangers: what two readers could read differently, or what costs too much to read, is refused."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from policies.strict_json import LARGE, MEMBERS_MAX, VALUES_MAX, BadJson, parse, run_off_loop
from tests.fakes.patience import cpu_seconds
from tests.strategies import json_values

REFUSED = {
    "nothing": b"",
    "half": b'{"a":',
    "two texts": b"1 2",
    "bad UTF-8": b'"\xff"',
    "a cut character": b'"\xc3"',
    "a byte order mark": b"\xef\xbb\xbf1",
    "UTF-16": '"a"'.encode("utf-16"),
    "a key twice": b'{"a":1,"a":1}',
    "a key twice, once escaped": b'{"a":1,"\\u0061":2}',
    "a key twice, deep": b'[{"b":{"a":1,"a":2}}]',
    "NaN": b"[NaN]",
    "Infinity": b"Infinity",
    "minus Infinity": b"-Infinity",
    "1e400": b"[1e400]",
    "minus 1e400": b"-1e400",
    "1E+400": b"[1E+400]",
    "309 digits": b"1" * 309,
    "5000 digits": b"1" * 5000,
    "5000 digits below zero": b"-" + b"1" * 5000,
    "a lone surrogate": b'"\\ud800"',
    "a lone surrogate in a key": b'{"\\uDFFF":1}',
    "surrogates in the wrong order": b'"\\udc00\\ud800"',
    "a line feed in a text": b'"a\nb"',
    "65 levels": b"[" * 65 + b"]" * 65,
    "65 levels of both kinds": b'{"a":[' * 33 + b"]}" * 33,
    "10,000 levels": b"[" * 10_000 + b"]" * 10_000,
    "100,000 levels that never close": b"[" * 100_000,
    "brackets that do not match": b"[}" * 100,
    "brackets that begin with the end": b"]" * 100 + b"[" * 100,
}


def large(raw: bytes) -> bytes:
    """The same JSON in a text that is read as a large one."""
    return raw + b" " * LARGE


@pytest.mark.parametrize("form", [bytes, large])
@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_strict_json_is_refused(raw: bytes, form: Callable[[bytes], bytes]) -> None:  # attack PRO-04
    with pytest.raises(BadJson):
        parse(form(raw))


NUMBERS = {
    "308 digits": (b"9" * 308, int("9" * 308)),
    "307 digits below zero": (b"-" + b"9" * 307, -int("9" * 307)),
    "the largest float": (b"1.7976931348623157e308", 1.7976931348623157e308),
    "nothing left of it": (b"1e-400", 0.0),
    "many decimals": (b"0." + b"3" * 400, 1 / 3),
}


@pytest.mark.parametrize("form", [bytes, large])
@pytest.mark.parametrize(("raw", "value"), NUMBERS.values(), ids=NUMBERS.keys())
def test_numbers_are_read_to_their_limits(raw: bytes, value: float, form: Callable[[bytes], bytes]) -> None:
    assert parse(form(raw)) == value
    assert type(parse(form(raw))) is type(value)


WHY = {
    "keys": (b'{"a":{"secret":1,"secret":2}}', "same key twice"),
    "NaN": (b'{"secret":NaN}', "not JSON: expected value at line 1 column 11"),
    "a float": (b'{"secret":1e999}', "not finite"),
    "an integer": (b'{"secret":' + b"7" * 309 + b"}", "too long"),
    "encoding": (b'{"secret":"\xff"}', "not UTF-8"),
    "syntax": (b'{"secret":}', "not JSON"),
    "depth": (b'{"secret":' + b"[" * 65 + b"]" * 65 + b"}", "deeper than 64"),
    "surrogates": (b'{"secret":"\\ud800"}', "surrogate"),
}


@pytest.mark.parametrize("form", [bytes, large])
@pytest.mark.parametrize(("raw", "why"), WHY.values(), ids=WHY.keys())
def test_a_refusal_says_why_and_quotes_nothing(raw: bytes, why: str, form: Callable[[bytes], bytes]) -> None:
    with pytest.raises(BadJson, match=why) as refused:
        parse(form(raw))
    assert "secret" not in str(refused.value) and "777" not in str(refused.value)


@pytest.mark.parametrize("form", [bytes, large])
def test_surrogates_in_pairs_are_one_character(form: Callable[[bytes], bytes]) -> None:
    assert parse(form(b'{"\\uD83D\\uDE00": "\\ud83d\\ude00"}')) == {"\U0001f600": "\U0001f600"}


@pytest.mark.parametrize("form", [bytes, large])
def test_64_levels_are_read_whatever_stands_in_texts(form: Callable[[bytes], bytes]) -> None:
    assert parse(form(b"[" * 64 + b"]" * 64))
    brackets = json.dumps(["[" * 1000, '\\"[{' * 100, {"[{": "]"}]).encode()
    assert parse(form(brackets)) == json.loads(brackets)


@given(json_values)
def test_whatever_json_can_say_is_read_as_everybody_reads_it(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert parse(text.encode()) == json.loads(text)
        assert parse(large(text.encode())) == json.loads(text)


FULL = {
    "names": (b'{"a":[' + b'{"b":1},' * (MEMBERS_MAX // 2), "objects and names"),
    "arrays": (b"[" + b"[]," * MEMBERS_MAX, "objects and names"),
    "values": (b"[" + b"1," * VALUES_MAX, "values"),
    "names behind strings": (b'["' + b'\\"' * LARGE + b'"' + b',{"\\\\":""}' * (MEMBERS_MAX // 2 + 1), "objects and names"),
}


@pytest.mark.parametrize(("raw", "why"), FULL.values(), ids=FULL.keys())
def test_what_would_become_too_much_is_refused_before_it_is_decoded(raw: bytes, why: str) -> None:  # attack AVL-02
    with pytest.raises(BadJson, match=why):  # although it never ends
        parse(raw)


def test_what_stands_in_strings_makes_nothing() -> None:
    raw = json.dumps(['{"a":[' * MEMBERS_MAX, "," * VALUES_MAX, '\\"' * LARGE, "\\" * (LARGE + 1)]).encode()
    assert parse(raw) == json.loads(raw)


def test_a_caller_may_allow_more() -> None:
    raw = b"[" + b"[]," * MEMBERS_MAX + b"[]]"
    assert len(parse(raw, 2 * MEMBERS_MAX)) == MEMBERS_MAX + 1


async def test_a_large_text_is_read_beside_the_event_loop() -> None:
    small, big = b"x", b"x" * (LARGE + 1)
    assert await run_off_loop(lambda _: threading.get_ident(), small) == threading.get_ident()
    assert await run_off_loop(lambda _: threading.get_ident(), big) != threading.get_ident()
    with pytest.raises(BadJson):
        await run_off_loop(parse, b"[" * LARGE)


# attack PRO-04: texts that a careless look at brackets reads again and again
@pytest.mark.parametrize(
    "raw",
    [b'"' + b'\\"' * 500_000 + b"[]" * 65, b"[" * 1_000_000, b"[" * 65 + b'"",' * 300_000, b"[" * 65 + b'"' + b"\\\\" * 500_000],
    ids=["escaped quotes", "open brackets", "many texts", "escaped backslashes"],
)
def test_a_million_hostile_bytes_cost_little(raw: bytes) -> None:
    with cpu_seconds(10), pytest.raises(BadJson):
        parse(raw)
